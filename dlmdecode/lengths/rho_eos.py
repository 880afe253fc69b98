"""ρ-EOS (arXiv 2601.22527): few EOS in sight, and the text grows; many, and it shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf, Probability, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.lengths.base import LENGTHS, InitialLength, Room, eos_confidence

MOST_UNITS = 8  # that the length changes by in a step


@dataclass(frozen=True)
class EosDensity(Revision):
    """After each commit the text grows or shrinks by the density of EOS among the proposals.

    By `unit` tokens where the density is up to 0.1 below `low` or above `high`; further away, by as
    many units (`schedule` "linear") or twice as many for each 0.1 ("exp"), `MOST_UNITS` at most.
    What is written is never cut, but for EOS. The length stays once it was the most that there is
    room for, or after `steps` steps. `measure` "confidence" is the mean probability of the last
    `window` EOS, which is what the authors' code has; "share" is the paper's, the share of the
    masks that are left.
    """

    reads_canvas = True
    reads_committed = True
    stateful = True
    compares_steps = True
    room: Room
    unit: int
    low: float
    high: float
    window: int
    schedule: str
    measure: str
    steps: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        left = self.room.left(canvas)
        frozen = canvas.memory.get(self, torch.zeros_like(canvas.held))
        canvas.memory[self] = frozen = frozen | (left <= 0) | (canvas.nfe > self.steps)
        density = self.density(canvas)
        grows, shrinks = (density < self.low) & ~frozen, (density > self.high) & ~frozen
        distance = torch.where(grows, self.low - density, density - self.high)
        change = self.unit * self.units(distance)
        self.cut(canvas, change * shrinks)
        canvas.grow(torch.minimum(change, left) * grows)
        self.room.reopen(canvas)

    def density(self, canvas: Canvas) -> Tensor:
        if self.measure == "confidence":
            return eos_confidence(canvas, self.window)
        masked = canvas.masked
        ends = canvas.is_eos(canvas.proposal.token) & masked
        return ends.sum(1).float() / masked.sum(1).clamp(min=1)

    def units(self, distance: Tensor) -> Tensor:
        """By how many units the length changes, (B,) int64."""
        bands = (distance / 0.1).ceil().clamp(1, MOST_UNITS).long()
        if self.schedule == "const":
            return torch.ones_like(bands)
        return bands if self.schedule == "linear" else (2 ** (bands - 1)).clamp(max=MOST_UNITS)

    def cut(self, canvas: Canvas, count: Tensor) -> None:
        """Take `count` (B,) positions from the end, as far as nothing is written there but EOS."""
        written = canvas.text & canvas.standing & ~canvas.is_eos(canvas.tokens)
        last = torch.where(written, canvas.position + 1, canvas.start[:, None]).amax(1)
        canvas.truncate(torch.maximum(canvas.stop - count, last))
        canvas.lo = torch.minimum(canvas.lo, canvas.stop)


@LENGTHS.register("rho_eos", paper="arXiv 2601.22527")
def rho_eos(
    room: Room,
    initial: Count | None = None,
    unit: Count = 8,
    low: Probability = 0.4,
    high: Probability = 0.6,
    window: Count = 32,
    schedule: Annotated[str, OneOf(("exp", "linear", "const"))] = "exp",
    measure: Annotated[str, OneOf(("confidence", "share"))] = "confidence",
    steps: Count = 64,
) -> Sampler:
    """Grow while the end of the text is out of sight, shrink where it is long passed."""
    require(low <= high, "low", low, f"give at most high={high}")
    rule = EosDensity(room, unit, low, high, window, schedule, measure, steps)
    return Sampler(openings=(InitialLength(room.first(initial)),), revisions=(rule,))
