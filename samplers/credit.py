"""CreditDecoding (arXiv 2510.06133): tokens that kept being the best gather credit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import Between, NonNegative, Probability, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Estimator, Part
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class TraceCredit(Estimator):
    """Logits plus `alpha` · ln(1 + C), where C decays by `beta` and the best token gains p^`gamma`.

    Credits are sparse: only tokens that were best at a position have any, so a position keeps
    `slots` (id + 1, credit) pairs, zeros where one is empty. They start anew with each block. Part
    of the gain over plain threshold decoding is a lower threshold: with alpha 0.65 and beta 0.7 a
    token of probability 0.853 passes 0.9 at once.
    """

    stateful = True
    alpha: float = 0.65
    beta: float = 0.7
    gamma: float = 0.2
    slots: int = 16

    def __post_init__(self) -> None:
        number("alpha", self.alpha, Between(0))
        number("beta", self.beta, Between(0, 1))
        number("gamma", self.gamma, Between(0))

    def refuses(self, other: Part) -> str | None:
        lost = "credits are kept for masks, and a re-masked position has lost its own"
        return lost if other.takes_back else None

    def __call__(
        self, logits: Tensor, rows: Canvas, positions: Positions, need: Tensor, **how: Any
    ) -> ops.Proposed:
        if (self, "ids") not in rows.memory:
            shape = (*rows.tokens.shape, self.slots)
            rows.memory[self, "ids"] = rows.tokens.new_zeros(shape)
            rows.memory[self, "credits"] = logits.new_zeros(shape, dtype=torch.float32)
        ids, credits = rows.memory[self, "ids"], rows.memory[self, "credits"]
        if any(row.full for row in rows.seen):  # a new block: forget
            fresh = rows.block_full[:, None, None]
            ids, credits = ids.masked_fill(fresh, 0), credits.masked_fill(fresh, 0)
        index = positions.at[..., None].expand(-1, -1, self.slots)
        proposed, new_ids, new_credits = ops.credit(
            logits.flatten(0, 1),
            ids.gather(1, index).flatten(0, 1) - 1,
            credits.gather(1, index).flatten(0, 1),
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            need=need.flatten(),
            **how,
        )
        rows.memory[self, "ids"] = ids.scatter(1, index, (new_ids + 1).view(index.shape))
        rows.memory[self, "credits"] = credits.scatter(1, index, new_credits.view(index.shape))
        return proposed


@register_sampler("credit", over="threshold", paper="arXiv 2510.06133", recorded=("credit",))
def credit(alpha: NonNegative = 0.65, beta: Probability = 0.7, gamma: NonNegative = 0.2) -> Sampler:
    """Boost tokens that kept being the best, so that stable ones pass the threshold sooner."""
    return Sampler(estimate=TraceCredit(alpha, beta, gamma))
