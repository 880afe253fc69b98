"""Selection rules: which positions of the open block to commit.

Rules read `canvas.confidence` (the proposals' probabilities, after the recipe's scores) and may
name any position: the loop keeps those that are open, and commits the most confident one where a
rule names none. Ties go to the lowest position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import number, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection


def by_rule(canvas: Canvas, rule: str, **parameters: Any) -> Tensor:
    """Open positions that a rule of `ops.commit` takes by `canvas.confidence`, (B, L) bool.

    Parameters and formulas are those of the op; nothing is taken where nothing passes.
    """
    tokens = canvas.tokens.clone()
    ops.commit(
        tokens,
        canvas.proposal.token,
        canvas.confidence,
        canvas.lo,
        canvas.hi,
        canvas.mask_id,
        rule,
        minimum=0,
        **parameters,
    )
    return tokens != canvas.tokens  # the mask is never proposed


@dataclass(frozen=True)
class Threshold(Selection):
    """Every position at least `threshold` sure (Fast-dLLM, arXiv 2505.22618).

    Above 1, none is: a step then commits its most confident position alone.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        number("threshold", self.threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "threshold", threshold=self.threshold)


class Quota(Protocol):
    def __call__(self, canvas: Canvas) -> Tensor: ...


@dataclass(frozen=True)
class EvenQuota:
    """What is left of the block, spread evenly over the steps it has left (LLaDA's schedule).

    `steps` are those of the whole text, of which a block has the share of its positions; the first
    steps of a block take the remainder. None is one token a step.
    """

    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            whole("steps", self.steps)

    def of_block(self, canvas: Canvas) -> Tensor:
        """Steps of the open block, (B,); it may be 0 for a short one."""
        lo, hi = canvas.before(canvas.lo), canvas.before(canvas.hi)
        if self.steps is None:
            return hi - lo
        return hi * self.steps // canvas.length - lo * self.steps // canvas.length

    def __call__(self, canvas: Canvas) -> Tensor:
        if self.steps is None:
            return torch.ones_like(canvas.lo)
        left = (self.of_block(canvas) - canvas.block_step).clamp(min=1)
        return -(-canvas.open.sum(1) // left)


@dataclass(frozen=True)
class TopK(Selection):
    """The most confident positions, `quota` of them in this step (LLaDA, arXiv 2502.09992)."""

    ranks = True
    quota: Quota

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "topk", quota=self.quota(canvas))
