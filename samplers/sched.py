"""SchED (arXiv 2512.02892): leave early once the whole text is sure enough for how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Between, Count, NonNegative, OneOf, number, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Stop
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler

SHARE_LEFT: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda progress, rate: 1 - progress,
    "cosine": lambda progress, rate: (1 + (math.pi * progress).cos()) / 2,
    "exponential": lambda progress, rate: (-rate * progress).exp(),
}
"""How much of the way from `low` to `high` is left at a progress from 0 to 1."""


@dataclass(frozen=True)
class SureOnAverage(Stop):
    """The mean logit gap over the whole text, written positions too, reaches a falling threshold.

    `until_eos` (beyond the paper) ends the text for this mean with its first end token, written or
    proposed: the sure end tokens of a canvas that is much longer than its text hide unsure words.
    It falls from `high` to `low` logits with the steps taken over `steps`, or with the share of the
    text that is written where no steps are given. Written positions that a cache does not compute
    count with their last gap; where it leaves masks out, the rule decides at refreshes only.
    """

    reads_canvas = True
    reads_committed = True
    high: float = 7.5
    low: float = 2.5
    schedule: str = "linear"
    rate: float = 4.0
    steps: int | None = None
    until_eos: bool = False

    def __post_init__(self) -> None:
        number("low", self.low, Between(0))
        falls = self.low <= self.high
        require(falls, "high", self.high, f"the threshold falls: give at least low={self.low}")

    def progress(self, canvas: Canvas) -> Tensor:
        if self.steps is not None:
            return ((canvas.step.double() + 1) / self.steps).clamp(max=1)
        length = canvas.length.double()
        return (length - canvas.masked.sum(1)) / length

    def counted(self, canvas: Canvas) -> Tensor:
        if not self.until_eos:
            return canvas.text
        ids = torch.where(canvas.masked, canvas.proposal.token, canvas.tokens)
        ends = (canvas.is_eos(ids) & canvas.text).long()
        return canvas.text & (ends.cumsum(1) == ends)

    def __call__(self, canvas: Canvas) -> Tensor:
        known = (~canvas.masked | canvas.fresh.contains(canvas.position)).all(1)
        counted = self.counted(canvas)
        gap = (canvas.proposal.margin * counted).sum(1) / counted.sum(1)
        left = SHARE_LEFT[self.schedule](self.progress(canvas), self.rate)
        return known & (gap >= self.low + (self.high - self.low) * left)


@register_sampler("sched", over="vanilla", paper="arXiv 2512.02892")
def sched(
    high: NonNegative = 7.5,
    low: NonNegative = 2.5,
    schedule: Annotated[str, OneOf(SHARE_LEFT)] = "linear",
    rate: Annotated[float, Between(0, above=True)] | None = None,
    steps: Count | None = None,
    until_eos: bool = False,
) -> Sampler:
    """Commit all that is left once the mean logit gap of the whole text passes a falling threshold.

    `rate` is of schedule="exponential", 4 if not given. The bounds are Prophet's: a gap in logits
    means something else for every model.
    """
    fix = "only schedule='exponential' has a rate"
    require(rate is None or schedule == "exponential", "rate", rate, fix)
    return Sampler(stops=(SureOnAverage(high, low, schedule, rate or 4.0, steps, until_eos),))
