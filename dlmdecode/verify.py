"""Verification: look several commits ahead in one forward, and keep what proves true.

A draft is one more row of the batch: the canvas as it would be after further commits. The rows of a
sequence stand together, its own row (branch 0) first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import require, whole
from dlmdecode.sampler import Choose


def fan_out(canvas: Canvas, depth: int, extend: Callable[[Canvas], Tensor]) -> Canvas:
    """`depth` rows for each row with an open block: branch j is `extend`-ed j times."""
    num = torch.where(canvas.block_full, 1, depth)
    rows = canvas.take(torch.arange(len(canvas), device=num.device).repeat_interleave(num))
    first = (num.cumsum(0) - num).repeat_interleave(num)
    rows.branch = torch.arange(len(rows), device=num.device) - first
    for j in range(1, depth):
        rows.commit(extend(rows) & (rows.branch >= j)[:, None])
    return rows


@dataclass(frozen=True)
class Lookahead:
    """Draft the next commits from the proposals at hand; keep the longest true chain of them.

    FreeDave (arXiv 2510.00294) over any deterministic stateless rule: draft j commits j times
    without a forward in between, one forward evaluates all drafts, and draft j + 1 counts if it is
    what draft j really becomes. The text is exactly that of the rule without drafts, in fewer
    forwards, under the same cache. A chain never runs past its block's end, where a cache
    refreshes.
    """

    lossless = True
    conflicts = {
        "ConfidentAndStable": "it compares successive forwards, and drafts skip some",
        "CoherentContext": "it compares successive forwards, and drafts skip some",
    }
    depth: int = 4

    def __post_init__(self) -> None:
        whole("draft_steps", self.depth)

    def check(self, sampler: Any) -> None:
        require(
            sampler.temperature == 0,
            "temperature",
            sampler.temperature,
            "drafts are verified against the best token: use temperature=0 with freedave",
        )

    def extend(self, rows: Canvas, choose: Choose) -> Tensor:
        return choose(rows)

    def holds(self, target: Tensor, draft: Tensor, canvas: Canvas) -> Tensor:
        """Whether each draft is what its predecessor became."""
        return (target == draft).all(1)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = fan_out(canvas, self.depth, lambda rows: self.extend(rows, choose))
        useful = (rows.branch == 0) | ~rows.block_full
        return rows.take(useful.nonzero()[:, 0])

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth = rows.take(torch.arange(len(rows), device=rows.lo.device))
        truth.commit(choose(truth))
        holds = torch.zeros_like(rows.block_full)
        holds[1:] = self.holds(truth.tokens[:-1], rows.tokens[1:], rows) & (rows.branch[1:] > 0)
        first = (rows.branch == 0).nonzero()[:, 0]
        chain = torch.ones_like(first, dtype=torch.bool)
        best = first.clone()
        for _ in range(1, self.depth):
            ahead = (best + 1).clamp(max=len(rows) - 1)
            chain = chain & holds[ahead] & (ahead > best)
            best = torch.where(chain, ahead, best)
        picked = rows.take(best)
        return replace(picked, branch=torch.zeros_like(picked.branch))
