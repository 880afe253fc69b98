"""Speculation writes what the verifier alone writes: greedy, sampled, stopped, in batches."""

import pytest
import torch
from speculation_toys import TEXT, Recalling, byte_level, llama, micro, with_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from dlmdecode.speculation import CausalDrafter, FixedLength, PathSearch, PromptLookup, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.verifier import load_verifier


def prompts(*lengths, seed=0, size=300):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, size, (length,), generator=generator) for length in lengths]


def alone(model, prompt, **options):
    return Verifier(model).generate(prompt, **{"max_new_tokens": 30} | options).sequences


def together(model, prompt, drafter=None, **options):
    drafter = drafter or Recalling(alone(model, prompt, max_new_tokens=200).tolist(), wrong=5)
    return decode(drafter, model, prompt, **{"max_new_tokens": 30} | options)


@pytest.mark.parametrize("family", ["llada", "dream", "fast-dllm-v2"])
@pytest.mark.parametrize("path_search", ["cps", "argmax"])
@pytest.mark.parametrize("vocab_size", [320, 312, 340])
def test_greedy_text_is_the_verifiers_with_padded_vocabularies_both_ways(
    family, path_search, vocab_size
):
    model, ids = llama(vocab_size, eos=(5,)), prompts(3, 9, 20)
    out = decode(
        micro(family),
        model,
        ids,
        max_new_tokens=12,
        path_search=path_search,
        vocabulary="identity",
        draft_length=6,
    )
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=12))
    drafted = [token for step in out.trace for token in step.draft]
    assert drafted and max(drafted) < min(vocab_size, 319)


@pytest.mark.parametrize("family", ["fast-dllm-v2", "stable-diffcoder"])
def test_a_drafter_with_blocks_of_its_own_drafts_across_them(family):
    model, ids, own = llama(eos=(5,)), prompts(15, 33), micro(family).block_length
    how = dict(max_new_tokens=20, vocabulary="identity", draft_length=own + 3)
    out = decode(micro(family), model, ids, **how)
    assert any(len(step.draft) > own for step in out.trace)
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=20))


@pytest.mark.parametrize("vocabulary", ["string_match", "retokenize"])
@pytest.mark.parametrize("sizes", [(320, 280), (280, 320)])
def test_greedy_text_is_the_verifiers_with_other_tokenizers_both_ways(vocabulary, sizes):
    drafter = with_tokenizer(micro("dream"), byte_level(sizes[0]))
    verifier = Verifier(llama(sizes[1], eos=(0,)), byte_level(sizes[1], TEXT[::-1]))
    out = decode(
        drafter, verifier, list(TEXT), max_new_tokens=12, vocabulary=vocabulary, draft_length=6
    )
    plain = verifier.generate(list(TEXT), max_new_tokens=12)
    assert torch.equal(out.sequences, plain.sequences)
    assert out.texts == plain.texts
    assert out.stats["num_draft_tokens"] > 0


@torch.inference_mode()
def test_in_bfloat16_texts_part_only_where_two_tokens_are_almost_equally_likely():
    model, ids = llama().bfloat16(), prompts(*[6] * 20)
    plain = alone(model, ids).tolist()
    out = decode(
        micro("dream"), model, ids, max_new_tokens=30, vocabulary="identity", draft_length=6
    )
    for text, own in zip(out.sequences.tolist(), plain, strict=True):
        pairs = enumerate(zip(text, own, strict=False))
        at = next((i for i, (one, other) in pairs if one != other), None)
        if at is not None:  # a block of positions was rounded otherwise than one position
            scores = model(torch.tensor([own[:at]])).logits[0, -1].float()
            assert (scores[text[at]] - scores[own[at]]).abs() < 2**-5 * scores.abs().max()


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("length", ["adaptive", 1, 4, 16])
def test_whatever_is_drafted_the_text_stays_and_only_the_forwards_change(wrong, length):
    model, ids = llama(), prompts(4)
    text = alone(model, ids, max_new_tokens=200).tolist()
    out = together(model, ids, Recalling(text, wrong), draft_length=length)
    assert out.sequences.tolist() == [text[0][:34]]
    if wrong == 1:
        assert out.stats["num_accepted_draft_tokens"] == 0
        assert out.stats["verifier_forwards"] == 30
    if wrong == 0:
        step = 31 if length == "adaptive" else length + 1
        assert out.stats["verifier_forwards"] == -(-30 // step)


def test_the_statistics_add_up_to_the_trace():
    out = together(llama(), prompts(4, 7), draft_length=6)
    drafts = [step for step in out.trace if step.draft]
    stats = out.stats
    assert stats["num_spec_steps"] == len(drafts)
    assert stats["num_draft_tokens"] == sum(len(step.draft) for step in drafts)
    assert stats["num_accepted_draft_tokens"] == sum(step.accepted for step in drafts)
    counted = enumerate(stats["acceptance_histogram"])
    assert sum(number * steps for number, steps in counted) == stats["num_accepted_draft_tokens"]
    assert sum(stats["acceptance_histogram"]) == len(drafts)
    mean = stats["num_accepted_draft_tokens"] / len(drafts)
    assert stats["mean_accepted_tokens"] == pytest.approx(mean)
    assert stats["mean_acceptance_length"] == pytest.approx(1 + mean)
    rate = stats["num_accepted_draft_tokens"] / stats["num_draft_tokens"]
    assert stats["draft_acceptance_rate"] == pytest.approx(rate)
    for row, text in enumerate(out.sequences.tolist()):
        steps = [step for step in out.trace if step.row == row]
        written = [token for step in steps for token in step.written]
        start = (4, 7)[row]
        assert written == text[start : start + out.new_tokens[row]]
        assert [step.number for step in steps] == list(range(1, len(steps) + 1))
        assert all(step.draft[: step.accepted] == step.written[: step.accepted] for step in steps)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_of_a_batch_equal_single_runs(temperature):
    model, ids = llama(), prompts(3, 9, 14)
    how = dict(temperature=temperature, seed=3, max_new_tokens=10, draft_length=5)
    batch = decode(micro("llada"), model, ids, vocabulary="identity", **how)
    for row, one in enumerate(ids):
        single = decode(micro("llada"), model, one, vocabulary="identity", **how)
        length = len(one) + single.new_tokens[0]
        assert torch.equal(batch.sequences[row, :length], single.sequences[0])
        kept = [(s.number, s.draft, s.accepted, s.written) for s in batch.trace if s.row == row]
        assert kept == [(s.number, s.draft, s.accepted, s.written) for s in single.trace]


def test_every_eos_of_a_list_ends_the_text_where_the_verifier_ends_it():
    ids = prompts(4)
    free = alone(llama(eos=()), ids)[0].tolist()
    for stop in (free[8], free[15]):
        model = llama(eos=(318, stop))
        out = together(model, ids, Recalling([free]))
        assert torch.equal(out.sequences, alone(model, ids))
        assert out.sequences[0, -1] == stop
        assert out.new_tokens == [out.sequences.shape[1] - 4]


def test_stop_strings_cut_in_the_middle_of_an_accepted_draft():
    tokenizer = byte_level(300)
    verifier = Verifier(llama(300, eos=(0,)), tokenizer)
    text = verifier.generate(TEXT[0], max_new_tokens=30)
    pieces = [tokenizer.decode(token) for token in text.sequences[0, -20:-5]]
    piece = next(one for one in pieces if one.isascii() and one.isprintable())
    plain = verifier.generate(TEXT[0], max_new_tokens=30, stop_strings=[piece])
    out = decode(
        Recalling(text.sequences.tolist()),
        verifier,
        TEXT[0],
        max_new_tokens=30,
        stop_strings=[piece],
    )
    assert torch.equal(out.sequences, plain.sequences)
    assert out.sequences.shape[1] < text.sequences.shape[1]
    verifier.model.generation_config.stop_strings = [piece]
    again = decode(Recalling(text.sequences.tolist()), verifier, TEXT[0], max_new_tokens=30)
    assert torch.equal(again.sequences, plain.sequences)
    assert verifier.model.generation_config.stop_strings == [piece]


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": [7, 8, 9]},
        {"eos_token_id": torch.tensor([3, 4])},
        {"min_new_tokens": 20},
        {"forced_eos_token_id": 318},
    ],
)
def test_the_verifiers_logits_processors_apply_at_every_drafted_position(options):
    model, ids = llama(), prompts(5)
    free = alone(model, ids, max_new_tokens=60).tolist()
    wanted = alone(model, ids, **options)
    for known in (free, [wanted[0].tolist() + [1] * 40]):
        out = together(model, ids, Recalling2(known[0]), **options)
        assert torch.equal(out.sequences, wanted)


class Recalling2(Recalling):
    """Drafts the known text by position, whatever was written."""

    def __init__(self, text):
        self.text = text

    def draft(self, prefix, length):
        return self.text[len(prefix) : len(prefix) + length]


def test_a_processor_in_the_generation_config_is_honoured():
    model, ids = llama(), prompts(5)
    before = alone(model, ids)
    model.generation_config.repetition_penalty = 1.5
    after = alone(model, ids)
    assert not torch.equal(before, after)
    assert torch.equal(together(model, ids, Recalling2(before[0].tolist())).sequences, after)


@pytest.mark.parametrize(
    "model",
    [
        lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=None,
                eos_token_id=318, initializer_range=0.3,
            )
        ),
        lambda: MistralForCausalLM(
            MistralConfig(
                vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, sliding_window=8, eos_token_id=318,
                bos_token_id=None, initializer_range=0.3, max_position_embeddings=256,
            )
        ),
    ],
    ids=["learned positions", "sliding window"],
)  # fmt: skip
def test_other_architectures_verify_too(model):
    torch.manual_seed(0)
    model, ids = model().eval(), prompts(6, 12)
    out = together(model, ids, draft_length=5)
    assert torch.equal(out.sequences, alone(model, ids))
    assert out.stats["num_accepted_draft_tokens"] > 0


def test_the_verifier_reads_every_accepted_token_once():
    model, ids, seen = llama(), prompts(5), []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    text = alone(llama(), ids, max_new_tokens=200).tolist()
    out = together(model, ids, Recalling(text, wrong=4), draft_length=6)
    hook.remove()
    drafts = [len(step.draft) for step in out.trace]
    assert seen == [5 + drafts[0], *(1 + length for length in drafts[1:])]


def test_the_drafter_reads_every_accepted_token_once():
    model, seen = micro("llada"), []
    real = type(model).encode

    class Counting(type(model)):
        def encode(self, tokens, *args, **kwargs):
            seen.append(tokens.shape[1])
            return real(self, tokens, *args, **kwargs)

    drafter = with_tokenizer(model, byte_level(300))
    drafter.__class__ = Counting
    ids = prompts(5)
    out = decode(drafter, llama(), ids, max_new_tokens=20, vocabulary="identity", draft_length=4)
    drafts = [step for step in out.trace if step.draft]
    fresh = [5, *(len(step.written) for step in drafts[:-1])]
    wanted = [new + step.length for new, step in zip(fresh, drafts, strict=True)]
    assert seen == wanted
    assert out.stats["drafter_forwards"] == len(drafts)


def test_more_steps_per_draft_cost_more_forwards_and_keep_the_text():
    model, ids = llama(), prompts(5)
    how = dict(max_new_tokens=12, vocabulary="identity", draft_length=6, path_search="argmax")
    out = decode(micro("dream"), model, ids, draft_steps=3, **how)
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=12))
    drafts = [step.length for step in out.trace if step.length]
    assert out.stats["drafter_forwards"] == sum(min(3, length) for length in drafts)


@pytest.mark.parametrize("used", [200, 240])
def test_a_text_may_fill_the_context_to_the_last_position(used):
    model, ids = llama(), prompts(used)
    rest = 256 - used
    wanted = alone(model, ids, max_new_tokens=rest)
    out = together(model, ids, Recalling(wanted.tolist(), wrong=5), max_new_tokens=rest)
    assert out.sequences.shape[1] == 256
    assert torch.equal(out.sequences, wanted)


def test_a_drafter_with_a_short_context_sees_the_end_of_the_text():
    drafter = with_tokenizer(micro("llada"), byte_level(300))
    drafter.max_length = 40
    model, ids = llama(), prompts(60)
    out = decode(drafter, model, ids, max_new_tokens=20, vocabulary="identity", draft_length=6)
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=20))
    assert out.stats["num_draft_tokens"] > 0


def test_other_drafters_plug_in():
    model, ids = llama(), prompts(5)
    wanted = alone(model, ids)
    same = together(model, ids, CausalDrafter(llama()), draft_length=5)
    assert torch.equal(same.sequences, wanted)
    assert same.stats["draft_acceptance_rate"] == 1.0
    again = together(model, [torch.cat([ids[0], wanted[0]])], PromptLookup(), max_new_tokens=10)
    assert torch.equal(
        again.sequences, alone(model, torch.cat([ids[0], wanted[0]]), max_new_tokens=10)
    )


def test_a_causal_drafter_that_disagrees_rewinds_its_cache():
    model, ids = llama(), prompts(5, 8)
    drafter = CausalDrafter(llama(seed=1))
    out = together(model, ids, drafter, draft_length=4, max_new_tokens=12)
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=12))
    fresh = [CausalDrafter(llama(seed=1)).draft(ids[0].tolist(), 4)]
    assert out.trace[0].draft == tuple(fresh[0])
    later = [s for s in out.trace if s.row == 0 and s.draft][3]
    before = [t for s in out.trace if s.row == 0 for t in s.written if s.number < later.number]
    text = ids[0].tolist() + before
    assert later.draft == tuple(CausalDrafter(llama(seed=1)).draft(text, len(later.draft)))


def test_each_step_is_shown_as_it_is_taken():
    shown = []
    out = together(llama(), prompts(4), on_step=shown.append)
    assert shown == out.trace


def test_prompts_come_as_text_chat_and_padded_tensors():
    tokenizer = byte_level(300)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    verifier = Verifier(llama(300, eos=(0,)), tokenizer)
    wanted = verifier.generate(TEXT[0], max_new_tokens=8).texts
    chat = [{"role": "user", "content": TEXT[0]}]
    ids = tokenizer(TEXT[0], return_tensors="pt")["input_ids"]
    padded = torch.nn.functional.pad(ids, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (3, 0))
    for prompt, more in ((TEXT[0], {}), (chat, {}), (ids, {}), (padded, {"attention_mask": mask})):
        out = decode(PromptLookup(), verifier, prompt, max_new_tokens=8, **more)
        assert out.texts == wanted


def test_a_saved_checkpoint_verifies_by_path(tmp_path):
    model = llama(300, eos=(0,))
    model.save_pretrained(tmp_path)
    byte_level(300).save_pretrained(tmp_path)
    out = decode(PromptLookup(), tmp_path, TEXT[0], max_new_tokens=8)
    again = load_verifier(tmp_path, device="cpu").generate(TEXT[0], max_new_tokens=8)
    assert out.texts == again.texts


def test_settings_come_as_objects_too():
    model, ids = llama(), prompts(5)
    out = decode(
        micro("llada"),
        model,
        ids,
        max_new_tokens=8,
        vocabulary="identity",
        path_search=PathSearch(beam=2, num_candidates=4),
        draft_length=FixedLength(3),
    )
    assert torch.equal(out.sequences, alone(model, ids, max_new_tokens=8))
    assert {step.length for step in out.trace[:-2]} <= {2, 3}


def test_a_drafter_with_fewer_positions_than_the_text_sees_its_end():
    config = GPT2Config(vocab_size=320, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model, ids = llama(), prompts(25)
    out = together(model, ids, CausalDrafter(GPT2LMHeadModel(config)), draft_length=4)
    assert torch.equal(out.sequences, alone(model, ids)) and out.stats["drafter_forwards"] > 30
