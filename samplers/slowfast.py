"""SlowFast (arXiv 2506.10848): explore until a stretch's end is certain, then write it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches import ShownUntil, cache_policy
from dlmdecode.checks import Between, Count, NonNegative, Probability
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.loop import most_confident
from dlmdecode.decoding.parts import BlockSchedule, Evaluation, Part, Revision, Selection
from dlmdecode.decoding.positions import Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.registry import register_sampler
from dlmdecode.settings import Settings


@dataclass(frozen=True)
class Cycles(Revision):
    """Remembers where the cycle of each row begins and ends, and how many steps it has taken.

    In each of its first `explore` steps the end is estimated: behind the last mask that is at least
    `reach` sure. It is fixed once the last `window` estimates deviate by less than `deviation`
    positions, else at their mean. The next cycle begins there once all before it is written.
    """

    compares_steps = True
    explore: int = 6
    reach: float = 0.3
    window: int = 2
    deviation: float = 1.0

    def state(self, canvas: Canvas) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Begin, length (−1: not fixed) and steps of the cycle, (B,), and estimates (B, window)."""
        none, zero = torch.full_like(canvas.lo, -1), torch.zeros_like(canvas.lo)
        blank = canvas.lo - canvas.start, none, zero, *[none] * self.window
        pairs, old = zip(canvas.recall(self, *blank), blank, strict=True), canvas.block_step > 0
        begin, length, steps, *estimates = (torch.where(old, *pair) for pair in pairs)
        return canvas.start + begin, length, steps, torch.stack(estimates, 1)

    def end(self, rows: Canvas) -> Tensor:
        """Where the canvas is cut, (B,): behind the cycle if that is written fast."""
        begin, length, steps, _ = self.state(rows)
        fast = (steps > self.explore) & ~rows.block_full
        return torch.where(fast, begin + length, rows.stop)

    def fixed(self, estimates: Tensor, steps: Tensor) -> Tensor:
        """The length (B,) that estimates (B, window) of so many steps (B,) fix, −1 if none."""
        known = estimates >= 0
        stable = known.all(1) & (estimates.double().std(1, correction=0) < self.deviation)
        mean = (estimates * known).sum(1) // known.sum(1)
        return torch.where(stable, estimates[:, -1], mean.masked_fill(steps < self.explore, -1))

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        before = replace(canvas, block_step=canvas.block_step - committed.any(1).long())
        begin, length, steps, estimates = self.state(before)
        ahead = (canvas.masked | committed) & Span(begin, canvas.hi).contains(canvas.position)
        ahead = ahead & (canvas.confidence >= self.reach)
        furthest = torch.where(ahead, canvas.position, begin[:, None]).amax(1)
        exploring, steps = steps < self.explore, steps + 1
        pushed = torch.cat([estimates[:, 1:], (furthest - begin + 1)[:, None]], 1)
        estimates = torch.where(exploring[:, None], pushed, estimates)
        length = torch.where(exploring & (length < 0), self.fixed(estimates, steps), length)
        left = canvas.masked & Span(begin, begin + length).contains(canvas.position)
        full = (steps >= self.explore) & ~left.any(1)
        begin = torch.where(full, begin + length, begin)
        length, steps = length.masked_fill(full, -1), steps.masked_fill(full, 0)
        estimates = estimates.masked_fill(full[:, None], -1)
        canvas.keep(self, begin - canvas.start, length, steps, *estimates.unbind(1))


@dataclass(frozen=True)
class SureInStretch(Selection):
    """Of the cycle, of the block while it explores, all `threshold` sure if two or more are."""

    cycles: Cycles
    threshold: float = 0.9

    def __call__(self, canvas: Canvas) -> Tensor:
        begin, length, steps, _ = self.cycles.state(canvas)
        end = torch.where(steps < self.cycles.explore, canvas.hi, begin + length)
        here = canvas.open & Span(begin, end).contains(canvas.position)
        sure = here & (canvas.confidence >= self.threshold)
        one = most_confident(canvas.confidence, here, 1)
        return torch.where((sure.sum(1) >= 2)[:, None], sure, one)


@dataclass(frozen=True)
class CutBehind(Evaluation):
    """The call's cache, shown nothing behind a cycle from its second fast step on."""

    hides_end = True
    cycles: Cycles

    def refuses(self, other: Part) -> str | None:
        slides = isinstance(other, BlockSchedule) and other.slides
        return "a cycle stays in its block, and a window that slides leaves it" if slides else None

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        return ShownUntil(cache_policy(model, settings.cache), self.cycles.end)


@register_sampler("slowfast", paper="arXiv 2506.10848", recorded=("slowfast",))
def slowfast(
    threshold: Probability = 0.9,
    explore: Count = 6,
    reach: Probability = 0.3,
    window: Annotated[int, Between(2)] = 2,
    deviation: NonNegative = 1.0,
) -> Sampler:
    """Explore for `explore` steps how far the sure positions reach, then write all of these."""
    cycles = Cycles(explore, reach, window, deviation)
    rule = SureInStretch(cycles, threshold)
    return Sampler(rule, revisions=(cycles,), evaluate=CutBehind(cycles))
