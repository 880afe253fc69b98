"""Prophet (arXiv 2508.19982): once the answer has settled, commit everything that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Count, Natural, NonNegative, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Stop
from dlmdecode.decoding.positions import Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.prophet_constraints import Constraints, checked_constraints


@dataclass(frozen=True)
class AnswerSettled(Stop):
    """The mean logit gap over the answer reaches a threshold that falls with progress.

    `answer` is (first position, length) from the start of the text. None (beyond the paper) is an
    answer that may stand anywhere: the least gap of all positions still masked counts, for in their
    mean a sure tail of end tokens hides unsure digits. A gap of 7.5 is odds of 1808 : 1, 5 is
    148 : 1, 2.5 is 12 : 1. Progress is steps used over `steps` where those are given, else the
    share of the text written.
    Under the dual cache the gaps are known, and the rule decides, only at refreshes.
    """

    reads_canvas = True
    early: float = 7.5
    mid: float = 5.0
    late: float = 2.5
    answer: tuple[int, int] | None = None
    steps: int | None = None
    block_length: int | None = None

    @property
    def reads_committed(self) -> bool:  # type: ignore[override]  # a flag that its answer decides
        return self.answer is not None

    def region(self, canvas: Canvas) -> Tensor:
        if self.answer is None:
            return canvas.masked
        first = canvas.ahead(canvas.start, self.answer[0])
        return (
            Span(first, canvas.ahead(first, self.answer[1])).contains(canvas.position) & canvas.text
        )

    def gap(self, canvas: Canvas, region: Tensor) -> Tensor:
        margin = canvas.proposal.margin
        if self.answer is None:
            return margin.masked_fill(~region, torch.inf).amin(1)
        return (margin * region).sum(1) / region.sum(1).clamp(min=1)

    def progress(self, canvas: Canvas) -> Tensor:
        length = canvas.length.double()
        if self.steps is None:
            return (length - canvas.masked.sum(1) + 1) / length
        block_length = self.block_length or length
        block, num_blocks = (
            canvas.before(canvas.lo) // block_length,
            (length / block_length).ceil(),
        )
        return (block * (self.steps / num_blocks) + canvas.block_step + 1) / self.steps

    def __call__(self, canvas: Canvas) -> Tensor:
        region = self.region(canvas)
        known = (~region | canvas.fresh.contains(canvas.position)).all(1)
        progress = self.progress(canvas)
        threshold = torch.where(progress < 0.67, self.mid, self.late)
        threshold = torch.where(progress < 0.33, self.early, threshold)
        return known & region.any(1) & (self.gap(canvas, region) >= threshold)


@register_sampler("prophet", over="vanilla", paper="arXiv 2508.19982", recorded=("prophet",))
def prophet(
    early: NonNegative = 7.5,
    mid: NonNegative = 5.0,
    late: NonNegative = 2.5,
    answer_start: Natural | None = None,
    answer_length: Count | None = None,
    constraints: Mapping[int, int | str] | None = None,
    steps: Count | None = None,
    max_new_tokens: Count = 256,
    block_length: Count | None = 32,
) -> Sampler:
    """Commit all that is left once the answer's mean top-2 logit gap passes a falling threshold.

    Without `answer_start` or `constraints` the answer may stand anywhere, and every position that
    is left must pass. `answer_length` is 5 tokens if not given.
    """
    fixed = checked_constraints(constraints)
    if answer_start is None and fixed:
        answer_start = fixed[-1][0] + 2
    if answer_start is None:
        fix = "it goes with answer_start or constraints"
        require(answer_length is None, "answer_length", answer_length, fix)
    else:
        inside = answer_start < max_new_tokens
        require(inside, "answer_start", answer_start, f"the text has {max_new_tokens} tokens")
    answer = None if answer_start is None else (answer_start, answer_length or 5)
    return Sampler(
        openings=(Constraints(fixed),) if fixed else (),
        stops=(AnswerSettled(early, mid, late, answer, steps, block_length),),
    )
