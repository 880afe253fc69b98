"""The verifier's text where its processors remember, its cache is special or it is wrapped."""

import copy
import inspect

import pytest
import torch
from fuzz_conditions import Counting, Patience
from fuzz_drafters import KINDS, MODELS, SHAPES
from fuzz_speculate import FAMILIES, setting, verifier
from speculation_toys import TEXT, Recalling, byte_level, llama
from transformers import (
    AutoModelForCausalLM,
    GPTNeoConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    RobertaConfig,
    StoppingCriteria,
)
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from dlmdecode.speculation import CausalDrafter, Draft, PromptLookup, Recycling, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.cached_model import CachedModel
from dlmdecode.speculation.verifier.caching import CACHE, can_rewind, step_inputs

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12, 8, 44, 21, 9, 70, 3])
ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24}


class Known(Recalling):
    """Drafts what the verifier will write, with every `wrong`-th token wrong."""

    def __init__(self, text, wrong):
        super().__init__([text], wrong)

    def draft(self, prefix, length):
        self.texts = [prefix + self.texts[0][len(prefix) :]]
        return super().draft(prefix, length)


def plain(model, new=30, **options):
    ids = PROMPT[None]
    own = dict(attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new)
    return model.generate(ids, **own | options)[0].tolist()


def same_text(model, new=30, fresh=dict, **options):
    """Whether speculation writes what the model writes, for drafts that are more or less wrong."""
    text = plain(model, new, **options, **fresh())
    for wrong in (0, 2, 5):
        out = decode(
            Known(text, wrong), model, PROMPT, max_new_tokens=new, draft_length=6,
            **options, **fresh(),
        )  # fmt: skip
        if out.sequences.tolist() != [text]:
            return False
    return True


class Watching(LogitsProcessor):
    """Keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append((input_ids.tolist(), scores.argmax().item()))
        return scores


class Asked(StoppingCriteria):
    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids.tolist())
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize("wrong", [0, 1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_processors_and_criteria_are_shown_each_text_once_and_in_order(wrong, temperature):
    model = llama(eos=())
    watching, asked = Watching(), Asked()
    how = {"logits_processor": [watching], "stopping_criteria": [asked]}
    text = plain(model)
    out = decode(
        Known(text, wrong), model, PROMPT, max_new_tokens=20, temperature=temperature,
        draft_length=6, **how,
    ).sequences.tolist()  # fmt: skip
    prefixes = [[out[0][:length]] for length in range(len(PROMPT), len(out[0]) + 1)]
    assert [ids for ids, _ in watching.seen] == prefixes[:-1]
    assert asked.seen == prefixes[1:]
    if temperature == 0:
        assert [token for _, token in watching.seen] == out[0][len(PROMPT) :]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "fresh",
    [
        lambda: {"guidance_scale": 3.0},
        lambda: {"guidance_scale": 1.5, "negative_prompt_ids": PROMPT[None, 3:6]},
        lambda: {"logits_processor": [Counting()]},
        lambda: {"logits_processor": LogitsProcessorList([Counting()]), "repetition_penalty": 1.3},
        lambda: {"stopping_criteria": [Patience(6)]},
        lambda: {"prefix_allowed_tokens_fn": lambda _, ids: [int(ids[-1]), *range(50)]},
    ],
    ids=["guidance", "negative prompt", "own", "own in a list", "criterion", "allowed tokens"],
)
def test_processors_with_a_memory_give_the_verifiers_text(family, fresh):
    model = verifier(family).model
    assert plain(model, **fresh()) != plain(model)
    assert same_text(model, fresh=fresh)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [*KINDS, *MODELS])
def test_random_settings_write_the_verifiers_text(kind, shape):
    text, same = setting(kind, shape, 0)
    assert same, text


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_writes_its_own_text(family):
    assert same_text(verifier(family).model, new=40)


@pytest.mark.parametrize("factor", ["short_factor", "long_factor"])
def test_texts_that_cross_the_length_where_longrope_switches(factor):
    other = {"short_factor": "long_factor", "long_factor": "short_factor"}[factor]
    rope = ROPE | {factor: [1.0] * 4, other: [1.0, 2.0, 6.0, 8.0]}
    model = llama(rope_parameters=rope, eos=())
    assert same_text(model, new=60)
    cached = CachedModel(model)
    assert [cached.room(length) for length in (13, 24, 25, 26)] == [11, 0, 0, float("inf")]


def test_a_convolution_is_rewound_or_refused():
    config = Lfm2Config(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, block_multiple_of=1,
        layer_types=["conv", "full_attention", "conv"], full_attn_idxs=[1], eos_token_id=None,
        bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(config).eval()
    try:
        same = same_text(model)
    except ValueError as error:
        assert "Lfm2ForCausalLM" in str(error) and "rewound" in str(error)
    else:
        assert same


class Adapted(torch.nn.Module):
    """Passes on everything, as adapters do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, input_ids=None, **kwargs):
        return self.inner(input_ids=input_ids, **kwargs)


def test_a_wrapped_model_verifies_and_drafts():
    model = llama(eos=())
    text = plain(model)
    assert same_text(Adapted(model))
    out = decode(CausalDrafter(Adapted(llama(eos=()))), Adapted(model), PROMPT, max_new_tokens=30)
    assert out.sequences.tolist() == [text]
    assert out.stats["draft_acceptance_rate"] == 1.0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's own code
def test_an_adapter_verifies_with_its_own_weights():
    peft = pytest.importorskip("peft")
    base = plain(llama(eos=()))
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(llama(eos=()), lora).eval()
    text = model.generate(
        input_ids=PROMPT[None], attention_mask=torch.ones(1, len(PROMPT)), do_sample=False,
        max_new_tokens=30,
    )[0].tolist()  # fmt: skip
    assert text != base
    out = decode(Known(text, 5), model, PROMPT, max_new_tokens=30, draft_length=6)
    assert out.sequences.tolist() == [text]


@pytest.mark.parametrize(
    "settings",
    [
        {"return_dict_in_generate": True},
        {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
        {"do_sample": True, "top_k": 5, "temperature": 0.7},
        {"max_length": 20},
        {"max_new_tokens": 3},
        {"min_new_tokens": 9},
        {"cache_implementation": "dynamic"},
    ],
    ids=lambda settings: "+".join(settings),
)
def test_a_generation_config_is_honoured_by_both_paths(settings):
    model = llama(eos=(7,))
    wanted = plain(model, return_dict_in_generate=False, **without_form(settings))
    model.generation_config.update(**settings)
    own = Verifier(model).generate(PROMPT, max_new_tokens=30)
    assert own.sequences.tolist() == [wanted]
    out = decode(Known(wanted, 4), model, PROMPT, max_new_tokens=30, draft_length=6)
    assert out.sequences.tolist() == [wanted]


def without_form(settings):
    """The settings that shape greedy text of 30 tokens."""
    form = {"return_dict_in_generate", "output_scores", "output_hidden_states"}
    form |= {"do_sample", "top_k", "temperature", "max_length", "max_new_tokens"}
    return {name: value for name, value in settings.items() if name not in form}


@pytest.mark.parametrize("where", ["call", "config"])
def test_stop_strings_stop_both_paths_alike(where):
    tokenizer = byte_level(300)
    one = Verifier(llama(300, eos=(0,)), tokenizer)
    free = one.generate(TEXT[0], max_new_tokens=30).sequences[0]
    pieces = [tokenizer.decode(token) for token in free[-20:-5]]
    strings = [piece for piece in pieces if piece.isascii() and piece.isprintable()][:1]
    options = {"stop_strings": strings} if where == "call" else {}
    if where == "config":
        one.model.generation_config.stop_strings = strings
    kept = copy.deepcopy(one.model.generation_config.to_dict())
    ids = tokenizer(TEXT[0], return_tensors="pt")["input_ids"]
    wanted = one.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30,
        tokenizer=tokenizer, **options,
    ).tolist()  # fmt: skip
    assert len(wanted[0]) < len(free)
    assert one.generate(TEXT[0], max_new_tokens=30, **options).sequences.tolist() == wanted
    out = decode(Recalling([free.tolist()]), one, TEXT[0], max_new_tokens=30, **options)
    assert out.sequences.tolist() == wanted
    assert one.model.generation_config.to_dict() == kept


@pytest.mark.parametrize("criterion", [MaxLengthCriteria(20), EosTokenCriteria(9)])
def test_criteria_of_a_call_take_the_place_of_the_verifiers_own(criterion):
    assert same_text(llama(), stopping_criteria=[criterion])


def test_a_batch_with_several_eos_ids_ends_every_row_where_the_verifier_does():
    model = llama(eos=())
    prompts = [PROMPT, PROMPT[2:], PROMPT[::2].contiguous()]
    free = [Verifier(model).generate(ids, max_new_tokens=30).sequences[0] for ids in prompts]
    ends = [int(free[i][len(ids) + 4 + i]) for i, ids in enumerate(prompts)]
    wanted = Verifier(model).generate(prompts, max_new_tokens=30, eos_token_id=ends, pad_token_id=1)
    out = decode(
        PromptLookup(), model, prompts, max_new_tokens=30, eos_token_id=ends, pad_token_id=1
    )
    assert torch.equal(out.sequences, wanted.sequences)
    assert max(out.new_tokens) < 30
    assert out.sequences[1, -1] == 1


def test_the_forward_is_called_by_the_names_of_the_installed_transformers():
    model = llama()
    assert CACHE in inspect.signature(model.forward).parameters
    cached = CachedModel(model)
    inputs = step_inputs(model, PROMPT[None], 0, cached.cache)
    assert inputs[CACHE] is cached.cache
    with torch.no_grad():
        [whole] = cached([PROMPT.tolist()], [Draft.chain([])])
        cached.keep([4], [()])
        [again] = cached([PROMPT.tolist()[:4] + [3, 4]], [Draft.chain([6])])
        direct = model(torch.tensor([PROMPT.tolist()[:4] + [3, 4, 6]])).logits[0, -2:]
    assert whole.shape == (1, 320)
    assert torch.allclose(again, direct, atol=1e-5)
    assert can_rewind(cached.cache)


def random_model(config, kind=None):
    """A model of a configuration with weights so large that its greedy text varies."""
    torch.manual_seed(1)
    model = (kind or AutoModelForCausalLM.from_config)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.dim() > 1 else 1)
    return model


LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
LAYERS |= {"num_attention_heads": 4, "max_position_embeddings": 128}


@pytest.mark.parametrize(
    "config",
    [
        # it counts from the padding's id on
        RobertaConfig(vocab_size=97, pad_token_id=1, is_decoder=True, **LAYERS),
        GPTNeoConfig(  # its window is no layer of the cache
            vocab_size=97, hidden_size=32, num_layers=2, num_heads=4, window_size=8,
            attention_types=[[["global", "local"], 1]], eos_token_id=0, bos_token_id=0,
        ),
    ],
    ids=["positions of its own", "a window in a mask"],
)  # fmt: skip
@pytest.mark.parametrize("drafter", [Recycling, PromptLookup])
def test_a_model_that_counts_or_looks_its_own_way_writes_its_own_text(config, drafter):
    model = Verifier(random_model(config))
    out = decode(drafter(), model, PROMPT, max_new_tokens=48)
    assert torch.equal(out.sequences, model.generate(PROMPT, 48).sequences)


class HandsOn(LlamaForCausalLM):
    """A forward that names no argument."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


def test_a_forward_that_hands_on_what_it_is_given_has_the_arguments_of_the_one_inside():
    model = random_model(LlamaConfig(vocab_size=97, **LAYERS), HandsOn)
    out = decode(PromptLookup(), model, PROMPT, max_new_tokens=24)
    assert torch.equal(out.sequences, Verifier(model).generate(PROMPT, 24).sequences)
