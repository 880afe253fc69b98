"""Voting over block lengths and best-of-n by likelihood, on top of `generate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import counted_forwards, micro, prompts, talking

import dlmdecode
from dlmdecode.likelihood import Likelihood, Rows
from dlmdecode.voting import best_of, likelihood, vote

SHAPE = {"max_new_tokens": 16, "eos": "ignore"}
LENGTHS = (2, 4, 8, 16)


def texts(length: int) -> list[str]:
    """Those of two prompts under a block length."""
    return dlmdecode.generate(talking(), prompts(5, 3), block_length=length, **SHAPE).texts


def test_the_candidates_are_the_texts_of_each_block_length_and_all_are_paid_for():
    found = vote(talking(), prompts(5, 3), block_lengths=LENGTHS, **SHAPE)
    singly = [texts(length) for length in LENGTHS]
    assert found.candidates == [list(own) for own in zip(*singly, strict=True)]
    assert found.texts == [own[k] for own, k in zip(found.candidates, found.chosen, strict=True)]
    calls = [
        dlmdecode.generate(talking(), prompts(5, 3), block_length=length, **SHAPE)
        for length in LENGTHS
    ]
    assert found.nfe == [sum(own) for own in zip(*(out.nfe for out in calls), strict=True)]
    assert found.stats["forward_rows"] == sum(out.stats["forward_rows"] for out in calls)
    kept = sum(calls[best].new_tokens[i] for i, best in enumerate(found.chosen))
    assert found.stats["new_tokens"] == kept and found.stats["scoring_rows"] == 0
    assert found.stats["tokens_per_forward"] == kept / sum(found.nfe)


@pytest.mark.parametrize(
    "answers, chosen",
    [("abbc", 1), ("abca", 0), ("abcd", 0), ("abab", 0), ("-bcc", 2), ("-b--", 1), ("----", 0)],
)
def test_the_most_frequent_answer_wins_and_of_equal_ones_the_first(answers, chosen):
    left = iter(answers)

    def answer(text: str) -> str | None:
        letter = next(left)
        return None if letter == "-" else letter

    found = vote(talking(), prompts(5)[0], block_lengths=LENGTHS, answer=answer, **SHAPE)
    assert found.chosen == [chosen]


def test_samples_of_one_schedule_vote_too():
    found = vote(
        talking(), prompts(5, 3), block_lengths=(4, 8), num_samples=3, temperature=1.0, **SHAPE
    )
    assert [len(own) for own in found.candidates] == [6, 6]
    assert len(set(found.candidates[0])) > 2


def test_the_likeliest_text_is_kept_and_its_scoring_counted():
    more = {"num_samples": 3, "num_masks": 4, "temperature": 1.0, "seed": 5}
    found = best_of(talking(), prompts(5, 3), **more, **SHAPE)
    for values, chosen in zip(found.values, found.chosen, strict=True):
        assert values[chosen] == max(values) and len(set(values)) > 1
    out = dlmdecode.generate(
        talking(), prompts(5, 3), num_return_sequences=3, temperature=1.0, seed=5, **SHAPE
    )
    assert [text for own in found.candidates for text in own] == out.texts
    most = SHAPE["max_new_tokens"]
    assert found.values[0][0] == likelihood(Likelihood(talking(), Rows(4), 4), out, 0, most)
    assert found.stats["scoring_rows"] == 2 * 3 * 4
    assert found.stats["forward_rows"] == out.stats["forward_rows"] + 2 * 3 * 4


def test_a_value_is_that_of_the_text_alone():
    more = {"num_samples": 2, "num_masks": 4, "temperature": 1.0, "seed": 5}
    one, other = prompts(5, 40)
    together = best_of(talking(), [one, other], **more, **SHAPE)
    assert together.values[0] == pytest.approx(best_of(talking(), one, **more, **SHAPE).values[0])
    with pytest.raises(ValueError, match="infill=True: gaps have text behind them"):
        best_of(talking(), one, infill=True, **more, **SHAPE)


@pytest.mark.parametrize(
    "call, bad, name",
    [
        (vote, {"block_lengths": (8,)}, "block_lengths"),
        (vote, {"block_lengths": (8, 8)}, "block_lengths"),
        (vote, {"block_lengths": 8}, "block_lengths=8"),
        (vote, {"block_lengths": (4, 999)}, "block_length=999"),
        (vote, {"block_length": 8}, "block_length"),
        (vote, {"num_samples": 2}, "num_return_sequences"),
        (vote, {"num_samples": 0}, "num_samples"),
        (vote, {"answer": "number"}, "answer"),
        (best_of, {"num_samples": 1}, "num_samples"),
        (best_of, {"num_masks": 0}, "num_masks"),
        (best_of, {"temperature": 0}, "temperature"),
    ],
)
def test_what_has_no_effect_is_refused_before_any_forward(call, bad, name):
    with counted_forwards(talking()) as count:
        with pytest.raises(ValueError, match=name):
            call(talking(), prompts(5), **bad, **SHAPE)
    assert count.calls == 0


def test_block_lengths_come_in_any_sequence():
    votes = [
        vote(talking(), prompts(5), block_lengths=lengths, **SHAPE).texts
        for lengths in ([8, 16], np.array([8, 16]), range(8, 17, 8))
    ]
    assert votes[0] == votes[1] == votes[2]


def test_a_model_without_a_tokenizer_has_no_text_to_judge():
    with pytest.raises(ValueError, match="no tokenizer"):
        vote(micro("llada"), prompts(5), **SHAPE)


def test_a_short_text_is_voted_over_the_block_lengths_that_it_has_room_for():
    found = vote(talking(), prompts(5)[0], max_new_tokens=16)
    chosen = vote(talking(), prompts(5)[0], block_lengths=(8, 16), max_new_tokens=16)
    assert found.candidates == chosen.candidates


@pytest.mark.parametrize("call", [vote, best_of])
def test_a_streamer_is_refused_and_ended(call):
    ended = []

    class Streamer:
        def end(self):
            ended.append(self)

    with pytest.raises(ValueError, match="streamer='Streamer'"):
        call(talking(), prompts(5)[0], streamer=Streamer(), **SHAPE)
    assert len(ended) == 1


def test_a_score_does_not_hang_on_how_the_length_is_spelled_nor_on_the_default_dtype():
    how = dict(num_samples=2, num_masks=4, seed=1)
    wanted = best_of(talking(), prompts(5)[0], max_new_tokens=8, **how).values
    assert best_of(talking(), prompts(5)[0], gen_length=8, **how).values == wanted
    assert best_of(talking(), prompts(5)[0], "threshold,max_new_tokens=8", **how).values == wanted
    torch.set_default_dtype(torch.float64)
    try:
        assert best_of(talking(), prompts(5)[0], max_new_tokens=8, **how).values == wanted
    finally:
        torch.set_default_dtype(torch.float32)
