"""Info-Gain and LookUM (arXiv 2602.18176): write the token after which least is uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Between, Count, NonNegative, OneOf, Probability, number, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.noise import gumbel
from dlmdecode.decoding.parts import Choose, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.drafts import Drafts, by_branch, fan_out, keep
from dlmdecode.registry import register_sampler

OBJECTIVES = ("info_gain", "lookum")


@dataclass(frozen=True)
class LeastUncertain(Drafts):
    """One draft for each of some positions, which it fills; the best one's position is kept.

    A draft is worth −(mean entropy of all masks that it leaves) and, for "info_gain", −(entropy of
    the position that it fills). The candidates are the most confident position and others drawn by
    e^(c / `spread`), in order of confidence where `spread` is 0. A block's first forward only
    looks, unless every position of the block is at least `threshold` sure: then all are written.
    """

    reads_canvas = True
    lossless = False
    candidates: int = 8
    threshold: float | None = 0.8
    objective: str = "info_gain"
    spread: float = 0.2

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.spread > 0

    def __post_init__(self) -> None:
        whole("candidates", self.candidates)
        number("spread", self.spread, Between(0))

    def ranked(self, canvas: Canvas) -> Tensor:
        """Positions (B, L) in the order in which they become candidates."""
        score = canvas.confidence.masked_fill(~canvas.open, -torch.inf)
        if self.spread:
            first = torch.zeros_like(canvas.open).scatter(1, score.argmax(1, keepdim=True), True)
            noise = gumbel(canvas.stream[:, None], canvas.position, canvas.step[:, None])
            score = torch.where(first, torch.inf, score / self.spread + noise)
        return score.argsort(dim=1, descending=True, stable=True)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = fan_out(canvas, canvas.open.sum(1).clamp(1, self.candidates))
        at = self.ranked(rows).gather(1, rows.branch[:, None])
        filled = torch.zeros_like(rows.open).scatter(1, at, True) & rows.open
        rows.memory[self] = filled
        rows.branch = (rows.branch + 1).masked_fill(~filled.any(1), 0)
        rows.tokens = torch.where(filled, rows.proposal.token, rows.tokens)
        return rows

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        entropy, left, filled = rows.proposal.entropy, rows.masked, rows.memory[self]
        worth = -(entropy * left).sum(1) / left.sum(1).clamp(min=1)
        if self.objective == "info_gain":
            worth = worth - (entropy * filled).sum(1)  # of before: what is filled is not proposed
        picked = keep(rows, by_branch(rows, worth).argmax(1))
        picked.remask(picked.memory[self])  # the step's commit writes it
        return picked

    def sure(self, canvas: Canvas) -> Tensor:
        """Rows (B,) whose open positions, but for the one that was chosen, are all sure."""
        if self.threshold is None:
            return torch.zeros_like(canvas.done)
        rest = canvas.open & ~canvas.memory[self]
        return ((canvas.confidence >= self.threshold) | ~rest).all(1)

    def looks(self, canvas: Canvas) -> Tensor:
        return ~canvas.memory[self].any(1) & ~self.sure(canvas)


@dataclass(frozen=True)
class Chosen(Selection):
    """The position that a look ahead chose, and all that is left of a block that is sure."""

    ranks = True
    ahead: LeastUncertain

    def __call__(self, canvas: Canvas) -> Tensor:
        return canvas.memory[self.ahead] | self.ahead.sure(canvas)[:, None]


@register_sampler("info_gain", paper="arXiv 2602.18176", recorded=("info-gain",))
def info_gain(
    candidates: Count = 8,
    threshold: Probability | None = 0.8,
    objective: Annotated[str, OneOf(OBJECTIVES)] = "info_gain",
    spread: NonNegative = 0.2,
) -> Sampler:
    """Try several positions a step, a row each, and write the one that leaves least uncertainty."""
    ahead = LeastUncertain(candidates, threshold, objective, spread)
    return Sampler(select=Chosen(ahead), verify=ahead)
