"""LoPA, look-ahead parallel decoding (arXiv 2512.16229): keep the most confident branch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Count, PositiveProbability, Probability, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Choose
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.drafts import Drafts, by_branch, fan_out, keep
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class SurestBranch(Drafts):
    """A draft for each of the most confident positions left, which it fills, and the row itself.

    A draft is worth the mean confidence of the `worst` share of its masks in the open block and,
    by `weight`, the confidence of the token that it adds. No draft fills its block.
    """

    lossless = False
    branches: int = 7
    weight: float = 0.0
    worst: float = 1.0

    def __post_init__(self) -> None:
        whole("branches", self.branches)

    def drafts(self, canvas: Canvas) -> Tensor:
        """How many each row has, (B,) int64."""
        return canvas.open.sum(1).sub(1).clamp(0, self.branches).masked_fill(canvas.block_full, 0)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = fan_out(canvas, self.drafts(canvas) + 1)
        ranked = rows.confidence.masked_fill(~rows.open, -torch.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        at = order.gather(1, (rows.branch - 1).clamp(min=0)[:, None])
        added = torch.zeros_like(rows.open).scatter(1, at, (rows.branch > 0)[:, None]) & rows.open
        rows.memory[self] = torch.where(added.any(1), rows.confidence.gather(1, at)[:, 0], 1.0)
        rows.tokens = torch.where(added, rows.proposal.token, rows.tokens)
        return rows

    def worth(self, rows: Canvas) -> Tensor:
        """(N,) float64 of rows whose confidence is known."""
        left = rows.open.sum(1)
        ranked = rows.confidence.masked_fill(~rows.open, torch.inf).sort(dim=1).values
        count = (left * self.worst).long().clamp(min=1)
        counted = torch.arange(ranked.shape[1], device=left.device) < count[:, None]
        mean = torch.where(counted, ranked, 0).sum(1) / count
        mean = torch.where(left == 0, 1.0, mean)
        return self.weight * rows.memory[self] + (1 - self.weight) * mean

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        choose(rows)  # so that `confidence` is that of the forward
        worth = by_branch(rows, self.worth(rows))
        best = worth.roll(-1, 1).argmax(1) + 1  # of equals a draft, the first
        return keep(rows, best % worth.shape[1])


@register_sampler("lopa", over="threshold", paper="arXiv 2512.16229", recorded=("lopa",))
def lopa(
    branches: Count = 7, weight: Probability = 0.0, worst: PositiveProbability = 1.0
) -> Sampler:
    """Try `branches` further tokens, a row each; keep the one most confident of the rest."""
    return Sampler(verify=SurestBranch(branches, weight, worst))
