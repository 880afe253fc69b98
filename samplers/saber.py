"""Saber (arXiv 2510.18165): a threshold that learns from what was committed, and backtracking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Count
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.parts.processors import StandingProbability
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class FirstCommits(Revision):
    """Remembers how confident each position of the block was when it was first committed, (B, L).

    0 where it never was.
    """

    stateful = True

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        known = self.known(canvas)
        new = committed & (known == 0)
        canvas.memory[self] = torch.where(new, canvas.proposal.prob, known)

    def known(self, canvas: Canvas) -> Tensor:
        return canvas.memory.get(self, torch.zeros_like(canvas.proposal.prob))


@dataclass(frozen=True)
class AboveAverage(Selection):
    """Every position more confident than first commits were on average, and two at least."""

    commits: FirstCommits

    def __call__(self, canvas: Canvas) -> Tensor:
        known = self.commits.known(canvas)
        had = known > 0
        mean = (known * had).sum(1) / had.sum(1)  # NaN, which nothing exceeds, before the first
        above = canvas.open & (canvas.confidence > mean[:, None])
        two = by_rule(canvas, "topk", quota=torch.full_like(canvas.lo, 2))
        return torch.where((above.sum(1) >= 2)[:, None], above, two)


@dataclass(frozen=True)
class Backtrack(Revision):
    """Re-mask the least probable tokens of the block: of n commits an eighth, one at least.

    What stands is judged by the forward that the commits are from; a full block stays.
    """

    reads_committed = True
    takes_back = True
    standing: StandingProbability

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        prob = torch.where(committed, canvas.proposal.prob, canvas.memory[self.standing].double())
        prob = prob.masked_fill(~canvas.block | canvas.masked, torch.inf)
        number = committed.sum(1)
        count = torch.minimum(-(-number // 8), number - 1).clamp(min=0)
        rank = prob.argsort(dim=1, stable=True).argsort(dim=1)
        back = (rank < count[:, None]) & ~canvas.block_full[:, None] & prob.isfinite()
        canvas.remask(back)


@register_sampler("saber", paper="arXiv 2510.18165", recorded=("saber",))
def saber(block_length: Count | None = None) -> Sampler:
    """Commit all above the mean confidence of first commits; re-mask what is least likely now."""
    standing, commits = StandingProbability(), FirstCommits()
    return Sampler(
        select=AboveAverage(commits),
        blocks=blocks_of(block_length),
        processors=(standing,),
        revisions=(commits, Backtrack(standing)),
    )
