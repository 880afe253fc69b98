"""What users of transformers expect of `generate`, and what each of it means on a canvas."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from test_samplers import RECIPES, options
from toy import EOS, MASK, VOCAB, counted_forwards, fond_of, micro, prompts, talking
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Span
from dlmdecode.parts.processors import MinPFilter, RepetitionPenalty, TopKFilter, TopPFilter
from dlmdecode.parts.remasking import first_match

SMALL = dict(max_new_tokens=16, block_length=8)
CACHES = ("none", "prefix", "dual")


def decoded(prompt, model=None, sampler="threshold", **more):
    more = SMALL | options(sampler) | more
    return dlmdecode.generate(model or talking(), prompt, sampler, **more)


def words(out) -> list[list[str]]:
    return [text.split() for text in out.texts]


# stop strings


@pytest.mark.parametrize("sampler", RECIPES)
def test_a_text_with_stop_strings_is_the_text_without_them_cut_at_the_first_match(sampler):
    rows = ["w5 w6 w7", "w1 w2", "w9 w8 w7 w6"]
    plain = decoded(rows, sampler=sampler)
    stops = ["no such text", *(text[-4:] for text in plain.texts[:2] if text)]
    cut = decoded(rows, sampler=sampler, stop_strings=stops)
    for text, whole in zip(cut.texts, plain.texts, strict=True):
        match = first_match(whole, stops)
        assert text == (whole if match is None else whole[: match[0]])
    assert sum(cut.nfe) <= sum(plain.nfe)


WARM = dict(temperature=3.0, seed=2, eos="ignore")  # for texts of many different words


@pytest.mark.parametrize("cache", CACHES)
def test_a_row_ends_early_at_a_stop_string_and_equals_its_single_run(cache):
    rows, how = ["w5 w6 w7", "w1 w2"], dict(sampler="vanilla", cache=cache, **WARM)
    plain = decoded(rows, **how)
    stop = " ".join(words(plain)[0][2:4])  # across two tokens
    cut = decoded(rows, stop_strings=stop, **how)
    assert words(cut)[0] == words(plain)[0][:2] and cut.new_tokens[0] == 4
    assert cut.nfe[0] < plain.nfe[0]
    for i, row in enumerate(rows):
        alone = decoded(row, stop_strings=stop, **how)
        assert alone.texts == [cut.texts[i]] and alone.nfe == [cut.nfe[i]]


def test_a_stop_string_behind_a_mask_waits_for_it():
    plain = decoded("w5 w6 w7", sampler="dream", **WARM)  # one block: positions in any order
    for word in words(plain)[0]:
        cut = decoded("w5 w6 w7", sampler="dream", stop_strings=word, **WARM)
        assert cut.texts[0] == plain.texts[0][: plain.texts[0].index(word)]


@pytest.mark.parametrize(
    "text, strings, match",
    [
        ("abcd", ["abcd", "bc"], (1, 3)),
        ("abc", ["c", "bc", "abc"], (0, 3)),
        ("abab", ["ab"], (0, 2)),
        ("abab", ["x"], None),
        ("", ["x"], None),
    ],
)
def test_the_first_match_is_the_one_that_ends_first(text, strings, match):
    assert first_match(text, strings) == match


# processors and filters


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (TopPFilter(0.7), [TopPLogitsWarper(0.7)]),
        (TopPFilter(0.7, 1.7), [TemperatureLogitsWarper(1.7), TopPLogitsWarper(0.7)]),
        (TopKFilter(7), [TopKLogitsWarper(7)]),
        (MinPFilter(0.2), [MinPLogitsWarper(0.2)]),
        (MinPFilter(0.2, 1.7), [TemperatureLogitsWarper(1.7), MinPLogitsWarper(0.2)]),
    ],
)
def test_a_filter_keeps_the_tokens_that_transformers_keeps(ours, theirs):
    logits = torch.randn(1, 40, VOCAB)
    canvas = Canvas.of(prompts(4), 40, MASK, (EOS,))
    kept = ours(logits, canvas, Span(canvas.start, canvas.stop))
    wanted = LogitsProcessorList(theirs)(canvas.tokens[:, :4].expand(40, -1), logits[0])
    assert torch.equal(kept[0].isinf(), wanted.isinf())
    assert torch.equal(kept[~kept.isinf()], logits[~kept.isinf()])


def test_the_repetition_penalty_is_that_of_transformers_and_spares_eos():
    logits = torch.randn(2, 5, VOCAB)
    canvas = Canvas.of(prompts(4, 7), 16, MASK, (EOS,))
    canvas.tokens[:, 12], canvas.tokens[:, 14] = torch.tensor([3, 300]), EOS
    penalised = RepetitionPenalty(1.4)(logits, canvas, Span(canvas.start, canvas.start + 5))
    for row, length in enumerate((4, 7)):
        ids = torch.cat([canvas.tokens[row, :length], canvas.tokens[row, 12:13]])
        wanted = RepetitionPenaltyLogitsProcessor(1.4)(ids.expand(5, -1), logits[row])
        assert torch.equal(penalised[row], wanted)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ({"repetition_penalty": 1.4}, RepetitionPenaltyLogitsProcessor(1.4)),
        ({"suppress_tokens": (194, 84)}, SuppressTokensLogitsProcessor([194, 84])),
    ],
)
@pytest.mark.parametrize("cache", CACHES)
def test_a_processor_of_transformers_works_as_the_option_of_its_name(ours, theirs, cache):
    rows = ["w5 w6 w7", "w194 w84 w3 w2"]
    calls = [
        ours,
        {"logits_processor": theirs},
        {"logits_processor": LogitsProcessorList([theirs])},
    ]
    model = fond_of(talking(), EOS, -100.0)  # transformers would penalise EOS, too
    one, two, three = (decoded(rows, model, cache=cache, **more).texts for more in calls)
    assert one == two == three != decoded(rows, model, cache=cache).texts


def test_tokens_and_texts_come_in_any_sequence():
    first = decoded("w5 w6 w7").sequences[0, 3].item()
    for ids in (np.array([first]), torch.tensor([first]), range(first, first + 1), {first}):
        assert decoded("w5 w6 w7", suppress_tokens=ids).sequences[0, 3] != first
    texts = [decoded("w5 w6 w7", stop_strings=some).texts for some in (["w1"], np.array(["w1"]))]
    assert texts[0] == texts[1]


def test_suppressed_tokens_are_never_written():
    plain = decoded("w5 w6 w7").sequences[0, 3:].tolist()
    assert not set(decoded("w5 w6 w7", suppress_tokens=plain).sequences[0, 3:].tolist()) & set(
        plain
    )


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_draw_from_the_best_token_alone_is_the_best_token(filters):
    drawn = decoded("w5 w6 w7", sampler="vanilla", temperature=3.0, seed=5, **filters)
    model = fond_of(talking(), MASK, 50.0)  # which is none of the tokens that are kept
    masked = decoded("w5 w6 w7", model, sampler="vanilla", temperature=3.0, seed=5, **filters)
    assert len(drawn.texts[0].split()) > 0 and not (masked.sequences == MASK).any()


def test_dream_takes_the_filters_itself_also_at_temperature_0():
    assert decoded("w5 w6 w7", sampler="dream", top_p=0.5, top_k=3).texts


# several tokens a step, several texts, negative prompts


@pytest.mark.parametrize("least", [1, 3, 99])
def test_a_step_commits_at_least_so_many_tokens_where_as_many_are_left(least):
    model, rows = micro("llada"), prompts(5, 3)
    how = SMALL | {"threshold": 1.0, "min_tokens_per_step": least, "eos": "ignore"}
    out = dlmdecode.generate(model, rows, "threshold", trace=True, **how)
    for step in out.trace.steps:
        assert set(step.changed.sum(1).tolist()) <= {min(least, 8), 8 % least}
    assert out.nfe == 2 * [2 * -(-8 // least)]


def test_copies_of_a_prompt_have_noise_of_their_own():
    how = dict(temperature=2.0, seed=3, eos="ignore")
    three = decoded(["w5 w6", "w7"], num_return_sequences=3, **how)
    assert len(set(three.texts)) == 6 and three.prompt_lengths == [2, 2, 2, 1, 1, 1]
    assert decoded("w7", num_return_sequences=3, **how).texts == three.texts[3:]
    assert decoded("w7", num_return_sequences=2, **how).texts == three.texts[3:5]
    assert decoded("w7", **how).texts == three.texts[3:4]


def test_copies_of_a_text_in_random_order_need_no_temperature():
    out = decoded("w7", sampler="vanilla", remasking="random", num_return_sequences=2)
    assert len(out.texts) == 2


@pytest.mark.parametrize("cache", CACHES)
def test_guidance_leads_away_from_a_negative_prompt(cache):
    rows = ["w5 w6 w7", "w1 w2"]
    how = dict(cache=cache, cfg_scale=1.5, sampler="vanilla")
    against = ["w11 w12 w13 w14 w15", "w3"]
    out = decoded(rows, negative_prompt=against, **how)
    assert out.texts != decoded(rows, **how).texts
    for i, (row, negative) in enumerate(zip(rows, against, strict=True)):
        assert decoded(row, negative_prompt=negative, **how).texts == [out.texts[i]]
    same = decoded(rows, negative_prompt=rows, **how)  # u and z are one: nothing to lead away from
    assert same.texts == decoded(rows, cache=cache, sampler="vanilla").texts


def test_a_negative_prompt_of_masks_is_guidance_without_one():
    model, prompt = talking(), "w5 w6 w7"
    guided = dlmdecode.decoding.guidance.Guided(
        dlmdecode.caches.cache_policy(model, "none"), 1.5, negative=[torch.full((3,), MASK)]
    )
    plain = dlmdecode.decoding.guidance.Guided(dlmdecode.caches.cache_policy(model, "none"), 1.5)
    ids = torch.tensor(model.tokenizer(prompt)["input_ids"])
    canvas = Canvas.of([ids], 16, MASK, (EOS,))
    wanted = Span(canvas.start, canvas.stop)
    with torch.inference_mode():
        assert torch.equal(guided(canvas, wanted)[0], plain(canvas, wanted)[0])


def test_a_negative_prompt_of_a_block_causal_model_keeps_its_blocks_in_place():
    model, rows = micro("sdar"), prompts(5)
    how = dict(cfg_scale=1.5, max_new_tokens=16)
    block = model.block_length
    longer = prompts(5 + block, seed=1)
    out = dlmdecode.generate(model, rows, negative_prompt=longer, **how)
    exact = dlmdecode.generate(model, rows, negative_prompt=longer, cache="block", **how)
    assert torch.equal(out.sequences, exact.sequences)
    with pytest.raises(ValueError, match="negative_prompt=.*modulo"):
        dlmdecode.generate(model, rows, negative_prompt=prompts(6), **how)


@pytest.mark.parametrize("recipe", ["threshold", "vanilla", "adablock+freedave", "klass", "wino"])
def test_a_row_of_a_batch_is_its_single_run_with_all_of_them(recipe):
    how = dict(
        repetition_penalty=1.2, suppress_tokens=[3, 4], min_tokens_per_step=2, sampler=recipe
    )
    if "freedave" not in recipe:
        how |= dict(temperature=1.5, top_p=0.9, top_k=50, min_p=0.01, seed=1)
    rows = ["w5 w6 w7", "w1 w2", ""]
    batch = decoded(rows, stop_strings=["w7"], **how)
    for i, row in enumerate(rows):
        assert decoded(row, stop_strings=["w7"], **how).texts == [batch.texts[i]]


BAD = {
    "nucleus without draws": ({"top_p": 0.9}, "top_p=0.9: at temperature 0"),
    "best tokens without draws": ({"top_k": 5}, "top_k=5: at temperature 0"),
    "a least probability without draws": ({"min_p": 0.1}, "min_p=0.1: at temperature 0"),
    "no nucleus": ({"temperature": 1, "top_p": 0}, "top_p=0"),
    "no penalty": ({"repetition_penalty": 0}, "repetition_penalty=0"),
    "a penalty beyond float32": ({"repetition_penalty": 1e-45}, "repetition_penalty=1e-45"),
    "no tokens a step": ({"min_tokens_per_step": 0}, "min_tokens_per_step=0"),
    "copies without draws": ({"num_return_sequences": 2}, "num_return_sequences=2.*temperature"),
    "no text": ({"num_return_sequences": 0}, "num_return_sequences=0"),
    "an empty stop string": ({"stop_strings": ["a", ""]}, "stop_strings="),
    "no stop string": ({"stop_strings": []}, "stop_strings="),
    "a stop that is no text": ({"stop_strings": 3}, "stop_strings=3"),
    "a token that there is not": ({"suppress_tokens": [VOCAB]}, "suppress_tokens=320"),
    "tokens in two dimensions": ({"suppress_tokens": np.array([[1, 2]])}, "suppress_tokens=numpy"),
    "tokens that are numbers": ({"suppress_tokens": torch.tensor([1.0])}, "suppress_tokens=torch"),
    "a streamer's class": ({"streamer": TextStreamer}, "streamer=<class"),
    "every token": ({"suppress_tokens": range(VOCAB)}, "suppress_tokens='320 ids'.*no token is"),
    "every token but the mask": ({"suppress_tokens": range(MASK)}, "suppress_tokens='319 ids'"),
    "a processor's class": (
        {"logits_processor": SuppressTokensLogitsProcessor},
        "logits_processor=<class.*no class",
    ),
    "a token that is none": ({"suppress_tokens": [1.5]}, "suppress_tokens="),
    "a processor that is none": ({"logits_processor": 3}, "logits_processor=3"),
    "no processor": ({"logits_processor": []}, "logits_processor="),
    "a negative prompt without guidance": (
        {"negative_prompt": "w1"},
        "negative_prompt=.*cfg_scale",
    ),
    "negative prompts of others": (
        {"negative_prompt": ["w1", "w2"], "cfg_scale": 1},
        "negative_prompt=.*one for all",
    ),
}


@pytest.mark.parametrize("more, message", BAD.values(), ids=BAD)
def test_what_has_no_effect_or_no_meaning_is_refused_before_any_forward(more, message):
    with counted_forwards(talking()) as count, pytest.raises(ValueError, match=message):
        decoded("w5 w6 w7", **more)
    assert count.calls == 0


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(ValueError, match="stop_strings=.*no tokenizer"):
        decoded(prompts(3), micro("llada"), stop_strings="w")


def test_a_processor_that_returns_something_else_is_named():
    with pytest.raises(ValueError, match="logits_processor=.*return scores"):
        decoded("w5", logits_processor=lambda ids, scores: scores[:, :5])


def test_a_processor_sees_what_stands_in_its_row():
    seen: list[list[int]] = []

    def look(ids, scores):
        seen.append(ids[0].tolist())
        return scores

    out = decoded("w5 w6 w7", sampler="vanilla", logits_processor=look)
    assert seen[0] == [5, 6, 7] and len(seen) == out.nfe[0]
    assert all(len(after) > len(before) for before, after in pairwise(seen))


@pytest.mark.parametrize("sampler, option", [("ccd", "candidates"), ("certainty", "sigma")])
def test_a_number_that_no_tensor_holds_is_refused_with_its_bound(sampler, option):
    with pytest.raises(ValueError, match=rf"{option}=1.*: give a .* below 2\*\*53"):
        decoded("w5 w6", sampler=sampler, **{option: 10**30})


@pytest.mark.parametrize("cache", ["dsb", "dcd"])
def test_a_forward_of_ones_own_takes_no_cache_that_needs_another_schedule(cache):
    with pytest.raises(ValueError, match="it follows a window that slides"):
        dlmdecode.generate("tiny", "a", "slowfast", cache=cache)
    with pytest.raises(ValueError, match="for each half of guidance"):
        dlmdecode.generate("tiny", "a", "slowfast", cache="flash", cfg_scale=1.0)


def test_what_is_remembered_follows_a_negative_prompt(monkeypatch):
    model, seen = dlmdecode.load("tiny"), []
    prompt, negative = "zq xv ;; 93 lorem ip", "ip merol 39 ;; vx qz foo bar baz qux foo bar baz"
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in (prompt, negative)]
    encode = model.encode

    def spy(tokens, position, attend=None, cache=None):
        if attend is not None:
            shown = attend[:, 0, 0].sum(-1).tolist()
            seen.append([n - own for n, own in zip(shown, lengths, strict=True)])
        return encode(tokens, position, attend, cache)

    monkeypatch.setattr(model, "encode", spy)
    how = dict(cfg_scale=0.5, negative_prompt=negative, max_new_tokens=24, eos="ignore")
    rule = "slowfast,explore=2,reach=0.6,threshold=0.95"
    dlmdecode.generate(model, prompt, rule, **how)
    assert all(one == other for one, other in seen) and len(set(map(tuple, seen))) > 1
    drafted = []

    def look(tokens, position, attend=None, cache=None):
        drafted.append((tokens[1, : lengths[1]] == model.mask_id).any().item())
        return encode(tokens, position, attend, cache)

    monkeypatch.setattr(model, "encode", look)
    dlmdecode.generate(model, prompt, "flash_verify,gamma=0.3,threshold=1.0", **how)
    assert len(drafted) > 5 and not any(drafted)
