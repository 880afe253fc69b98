"""Texts that find their length: the canvas grows, shrinks and makes room row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, MASK, counted_forwards, fond_of, micro, prompts

import dlmdecode
from dlmdecode.caches import cache_policy
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import denoise
from dlmdecode.lengths import Room, length_of
from dlmdecode.lengths.base import eos_confidence

RULES = ("rho_eos,initial=16,window=2,low=0.2,high=0.3", "daedal,initial=16,window=2,unsure=0.5")
SHAPE = dict(max_new_tokens=40, block_length=8, eos="ignore", threshold=0.6)


def canvas_of(length: int = 12) -> Canvas:
    canvas = Canvas.of(prompts(3, 5), 24, MASK, (EOS,))
    canvas.truncate(canvas.start + length)
    return canvas


@settings(max_examples=40, deadline=None)
@given(
    at=st.lists(st.integers(0, 11), min_size=2, max_size=2),
    count=st.lists(st.integers(0, 9), min_size=2, max_size=2),
    most=st.integers(12, 24),
)
def test_what_is_inserted_moves_the_rest_of_its_row_right(at, count, most):
    canvas = canvas_of()
    canvas.tokens[0, 3:15], canvas.tokens[1, 5:17] = torch.arange(12), torch.arange(12) + 100
    canvas.proposal.token = canvas.tokens.clone()
    canvas.memory["seen"] = canvas.tokens.double()[..., None]
    rows = [
        row[start : start + 12].tolist() for row, start in zip(canvas.tokens, (3, 5), strict=True)
    ]
    heads = [canvas.tokens[0, :3].tolist(), canvas.tokens[1, :5].tolist()]
    canvas.insert(canvas.start + torch.tensor(at), torch.tensor(count), canvas.start + most)
    for i, (text, start) in enumerate(zip(rows, (3, 5), strict=True)):
        wanted = (text[: at[i]] + [MASK] * count[i] + text[at[i] :])[:most]
        assert canvas.tokens[i, :start].tolist() == heads[i]
        assert canvas.tokens[i, start : int(canvas.stop[i])].tolist() == wanted
        assert set(canvas.tokens[i, int(canvas.stop[i]) :].tolist()) <= {EOS}
        moved = canvas.tokens[i] != MASK
        text = moved & canvas.text[i]
        assert torch.equal(canvas.proposal.token[i][text], canvas.tokens[i][text])
        assert torch.equal(canvas.memory["seen"][i, :, 0][text].long(), canvas.tokens[i][text])


def test_what_grows_are_masks_behind_the_text():
    canvas = canvas_of()
    canvas.grow(torch.tensor([4, 0]))
    assert canvas.stop.tolist() == [19, 17] and canvas.masked.sum(1).tolist() == [16, 12]


def test_the_confidence_of_eos_counts_the_last_ones_and_misses_those_that_are_not_there():
    canvas = canvas_of()
    canvas.proposal.token = torch.zeros_like(canvas.tokens)
    canvas.proposal.token[0, [4, 6, 8, 20]] = EOS  # the last one stands behind the text
    canvas.proposal.prob = torch.full(canvas.tokens.shape, 0.5).double()
    canvas.proposal.prob[0, 8] = 1.0
    assert eos_confidence(canvas, 2).tolist() == [0.75, 0.0]
    assert eos_confidence(canvas, 4).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_each_row_finds_the_length_that_it_finds_alone(rule, family):
    model, rows = micro(family), prompts(5, 2, 9)
    batch = dlmdecode.generate(model, rows, length=rule, **SHAPE)
    for i, prompt in enumerate(rows):
        alone = dlmdecode.generate(model, prompt, length=rule, **SHAPE)
        assert torch.equal(batch.sequences[i, : len(prompt) + 40], alone.sequences[0])
        assert torch.equal(batch.sequences[i, : len(prompt)], prompt)
        assert batch.nfe[i] == alone.nfe[0]
    assert not (batch.sequences == MASK).any()


def lengths_of(model, rule: str, recipe: str = "threshold") -> list[list[int]]:
    """The length of each row's text, and its written tokens, after every step."""
    whole = dlmdecode.sampler(recipe, block_length=8)
    whole = whole.merge(length_of(rule, 40, whole, model))
    canvas = Canvas.of(prompts(5, 2), 40, MASK, (EOS,))
    for opening in whole.openings:
        opening(canvas)
    return [
        (rows.stop - rows.start).tolist()
        for rows in denoise(cache_policy(model, "none"), canvas, whole)
    ]


@pytest.mark.parametrize("rule", ["rho_eos,initial=16,unit=4", "daedal,initial=16"])
def test_a_text_whose_end_is_out_of_sight_grows_to_the_most_and_no_further(rule):
    seen = lengths_of(fond_of(micro("llada"), EOS, -50.0), rule)
    assert seen[-1][0] == 40 == max(map(max, seen)) and seen[0][0] > 16


def test_a_text_of_eos_shrinks():
    seen = lengths_of(fond_of(micro("llada"), EOS, 4.0), "rho_eos,initial=32,window=4")
    assert min(map(min, seen)) < 32


def test_what_is_written_is_never_cut():
    model, kept = micro("llada"), {}
    how = SHAPE | {"threshold": 0.3}
    rule = "rho_eos,initial=40,window=1,low=0,high=0,steps=99"  # it shrinks at every step
    out = dlmdecode.generate(model, prompts(5), length=rule, trace=True, **how)
    for step in out.trace.steps:
        row = step.sequences[0].tolist()
        assert all(row[at] == token for at, token in kept.items())
        changed = step.changed[0].nonzero()[:, 0].tolist()
        kept |= {at: row[at] for at in changed if row[at] not in (EOS, MASK)}
    assert kept


def test_an_early_end_ends_the_text_whatever_the_rule_says():
    model = fond_of(micro("llada"), EOS, 50.0)
    out = dlmdecode.generate(
        model, prompts(5), length="daedal,initial=16", **SHAPE | {"eos": "stop"}
    )
    assert out.new_tokens == [0] and out.nfe[0] < 5


BAD = {
    "an unknown rule": ({"length": "rho"}, "length='rho'.*did you mean 'rho_eos'"),
    "an unknown option": ({"length": "daedal,uint=4"}, "did you mean 'unit'"),
    "more than there is room for": (
        {"length": "rho_eos,initial=64"},
        "initial=64.*max_new_tokens=40",
    ),
    "bars that cross": ({"length": "rho_eos,initial=8,low=0.9"}, "low=0.9.*high=0.6"),
    "a cache": ({"length": RULES[0], "cache": "dual"}, "length=.*leave the cache out"),
    "a schedule": (
        {"length": RULES[0], "steps": 8, "sampler": "vanilla"},
        "length=.*leave them out",
    ),
    "blocks of other lengths": (
        {"length": RULES[0], "sampler": "adablock", "delimiters": 5},
        "length=.*DelimiterBlocks",
    ),
    "a forward of its own": (
        {"length": RULES[0], "sampler": "wino"},
        "length=.*forward of its own",
    ),
    "drafts": ({"length": RULES[0], "sampler": "freedave"}, "drafts skip"),
    "a number": ({"length": 64}, "length=64"),
}


@pytest.mark.parametrize("more, message", BAD.values(), ids=BAD)
def test_what_cannot_find_its_length_is_refused_before_any_forward(more, message):
    shape = {k: v for k, v in SHAPE.items() if "sampler" not in more or k != "threshold"}
    with counted_forwards(micro("llada")) as count, pytest.raises(ValueError, match=message):
        dlmdecode.generate(micro("llada"), prompts(5), **(shape | more))
    assert count.calls == 0


def test_a_block_causal_model_has_no_end_in_sight():
    with pytest.raises(ValueError, match="length=.*does not see the end"):
        dlmdecode.generate(micro("sdar"), prompts(5), length=RULES[0], max_new_tokens=40)


def test_room_is_what_is_left_of_the_most():
    canvas = canvas_of()
    assert Room(24, 8).left(canvas).tolist() == [12, 12]


@pytest.mark.parametrize("length", ["daedal", "rho_eos"])
def test_a_short_text_begins_as_long_as_it_may_get(length):
    out = dlmdecode.generate("tiny", "What is 2 + 3?", length=length, max_new_tokens=16)
    assert len(out.texts[0]) > 0 or out.new_tokens == [0]
