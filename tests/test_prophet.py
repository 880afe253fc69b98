"""When Prophet stops: which gaps it reads, and what they must reach."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS, MASK

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Span
from dlmdecode.samplers.prophet import AnswerSettled

LENGTH = 12
GAPS = st.lists(st.floats(0, 12, width=32), min_size=LENGTH, max_size=LENGTH)
WRITTEN = st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH)


def canvas_with(gaps: list[float], written: list[bool]) -> Canvas:
    """One row of two prompt tokens and `LENGTH` others, all of them fresh from a forward."""
    canvas = Canvas.of([torch.ones(2, dtype=torch.long)], LENGTH, MASK, (EOS,))
    canvas.tokens[0, 2:][torch.tensor(written)] = 1
    canvas.proposal.margin = torch.tensor([[0.0, 0.0, *gaps]])
    canvas.fresh = Span(canvas.start, canvas.stop)
    return canvas


def least(written: list[bool]) -> float:
    progress = (sum(written) + 1) / LENGTH
    return 7.5 if progress < 0.33 else 5.0 if progress < 0.67 else 2.5


@given(gaps=GAPS, written=WRITTEN)
def test_an_answer_that_may_stand_anywhere_needs_the_bar_at_every_mask(gaps, written):
    left = [gap for gap, done in zip(gaps, written, strict=True) if not done]
    stops = AnswerSettled()(canvas_with(gaps, written))
    assert stops.tolist() == [bool(left) and min(left) >= least(written)]


@given(gaps=GAPS, written=WRITTEN, first=st.integers(0, LENGTH - 1), width=st.integers(1, 5))
def test_the_gaps_of_a_known_answer_are_averaged_the_written_ones_too(gaps, written, first, width):
    region = gaps[first : first + width]
    stops = AnswerSettled(answer=(first, width))(canvas_with(gaps, written))
    mean = torch.tensor(region).mean()
    if abs(mean - least(written)) > 1e-4:
        assert stops.tolist() == [mean >= least(written)]


@pytest.mark.parametrize("answer", [None, (0, LENGTH)])
def test_gaps_that_the_last_forward_did_not_compute_decide_nothing(answer):
    canvas = canvas_with([9.0] * LENGTH, [False] * LENGTH)
    assert AnswerSettled(answer=answer)(canvas).tolist() == [True]
    canvas.fresh = Span(canvas.start, canvas.stop - 1)
    assert AnswerSettled(answer=answer)(canvas).tolist() == [False]
