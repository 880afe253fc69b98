"""CCD, coherent contextual decoding (arXiv 2512.02044): trust what two contexts agree on.

The rule follows the authors' released code: agreement of the best token over two successive steps
among the most confident positions. The paper's average of distributions is not in that code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlmdecode.checks import Count, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Estimator, Part, Processor, Selection
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.scores import NegativeEntropy
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


def most_confident(canvas: Canvas, count: int) -> Tensor:
    """The `count` most confident open positions, (B, L) bool."""
    return by_rule(canvas, "topk", quota=torch.full_like(canvas.lo, count))


@dataclass(frozen=True)
class LastLook(Processor):
    """Remembers the previous step's proposals, and its most confident positions left open."""

    stateful = True
    compares_steps = True
    candidates: int = 4

    def refuses(self, other: Part) -> str | None:
        twice = isinstance(other, Estimator) and other.stateful
        return "both count how often a token was the best, twice over" if twice else None

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        rows.memory[self, "candidates"] = most_confident(rows, self.candidates)
        rows.memory[self, "token"] = rows.proposal.token
        return logits


@dataclass(frozen=True)
class CoherentContext(Selection):
    """Of the `candidates` most confident positions, those that were already, with the same token.

    All of them if `dynamic` (CCD-DS), else the `budget` best; fewer than `budget`: plain top-k.
    """

    memory: LastLook
    budget: int = 1
    dynamic: bool = True

    def __post_init__(self) -> None:
        whole("budget", self.budget)
        enough = self.memory.candidates >= self.budget
        require(enough, "candidates", self.memory.candidates, f"give at least budget={self.budget}")

    def __call__(self, canvas: Canvas) -> Tensor:
        before = canvas.memory[self.memory, "candidates"]
        same = canvas.memory[self.memory, "token"] == canvas.proposal.token
        agree = most_confident(canvas, self.memory.candidates) & before & same
        enough = agree.sum(1) >= self.budget
        if not self.dynamic:
            ranked = canvas.confidence.masked_fill(~agree, -torch.inf)
            agree = most_confident(replace(canvas, confidence=ranked), self.budget)
        return torch.where(enough[:, None], agree, most_confident(canvas, self.budget))


@register_sampler("ccd", paper="arXiv 2512.02044")
def ccd(budget: Count = 1, candidates: Count = 4, dynamic: bool = True) -> Sampler:
    """Commit the most confident positions whose token two successive contexts agree on."""
    memory = LastLook(candidates)
    return Sampler(
        select=CoherentContext(memory, budget, dynamic),
        processors=(memory,),
        scores=(NegativeEntropy(),),
    )
