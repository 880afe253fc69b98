"""CCD, coherent contextual decoding (arXiv 2512.02044): trust what two contexts agree on.

The rule follows the authors' released code: agreement of the best token over two successive steps
among the surest positions. The paper's average of distributions is not in that code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas, Span
from dlmdecode.checks import require
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler
from dlmdecode.scores import NegativeEntropy
from dlmdecode.select import prefix, surest_first


@dataclass(frozen=True)
class LastLook:
    """Remembers what the previous step proposed, and where it was surest without committing."""

    stateful = True
    conflicts = {
        "TraceCredit": "both count how often a token was the best, twice over",
        "Lookahead": "a draft has not seen the steps that the rule compares",
    }
    candidates: int = 4

    def __call__(self, logits: Tensor, rows: Canvas, span: Span) -> Tensor:
        _, order = surest_first(rows)
        seen = prefix(order, torch.full_like(rows.lo, self.candidates)) & rows.open
        rows.memory[self, "candidates"] = seen
        rows.memory[self, "token"] = rows.proposal.token
        return logits


@dataclass(frozen=True)
class CoherentContext:
    """Of the `candidates` surest positions, those that were already, with the same token.

    All of them if `dynamic` (CCD-DS), else the `budget` surest; fewer than `budget`: plain top-k.
    """

    memory: LastLook
    budget: int = 1
    dynamic: bool = True

    def __post_init__(self) -> None:
        require(self.budget >= 1, "budget", self.budget, "give at least 1 token per step")
        enough = self.memory.candidates >= self.budget
        require(enough, "candidates", self.memory.candidates, f"give at least budget={self.budget}")

    def __call__(self, canvas: Canvas) -> Tensor:
        _, order = surest_first(canvas)
        budget = torch.full_like(canvas.lo, self.budget)
        surest = prefix(order, torch.full_like(canvas.lo, self.memory.candidates))
        before = canvas.memory[self.memory, "candidates"]
        same = canvas.memory[self.memory, "token"] == canvas.proposal.token
        agree = surest & before & same & canvas.open
        enough = agree.sum(1) >= self.budget
        if not self.dynamic:
            rank = agree.gather(1, order).long().cumsum(1)  # count along falling confidence
            agree = agree & torch.zeros_like(agree).scatter(1, order, rank <= self.budget)
        return torch.where(enough[:, None], agree, prefix(order, budget))


@register_sampler("ccd", paper="arXiv 2512.02044")
def ccd(budget: int = 1, candidates: int = 4, dynamic: bool = True) -> Sampler:
    """Commit the surest positions whose token two successive contexts agree on."""
    memory = LastLook(candidates)
    return Sampler(
        select=CoherentContext(memory, budget, dynamic),
        processors=(memory,),
        scores=(NegativeEntropy(),),
    )
