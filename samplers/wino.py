"""WINO (wide in, narrow out; ICLR 2026): accept boldly, and take back what does not hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Probability, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.wino_shadow import SHADOW, Shadowed

FIRST_LIMIT = 30


@dataclass(frozen=True)
class WideIn(Selection):
    """Positions above `threshold`, the best first, at most 0.7 of the block's masks (5 to 20)."""

    threshold: float = 0.6

    def __post_init__(self) -> None:
        number("threshold", self.threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        sure = canvas.open & (canvas.confidence > self.threshold)
        most = (0.7 * canvas.open.sum(1)).long().clamp(5, 20)
        return by_rule(canvas, "topk", quota=torch.minimum(sure.sum(1), most))


@dataclass(frozen=True)
class NarrowOut(Revision):
    """Re-mask tokens of the block whose shadow gives them less than `threshold`.

    Only where this step accepted more than one token, and fewer than the step before accepted: so
    the text grows by at least one token per step on average.
    """

    reads_committed = True
    takes_back = True
    threshold: float = 0.9

    def __post_init__(self) -> None:
        number("threshold_back", self.threshold)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        accepted = committed.sum(1)
        limit = canvas.memory.get(self, accepted).masked_fill(canvas.block_step == 1, FIRST_LIMIT)
        prob = canvas.memory[SHADOW]
        doubted = canvas.block & (prob < self.threshold) & ~(canvas.masked | committed)
        order = prob.masked_fill(~doubted, torch.inf).argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)
        count = torch.minimum(doubted.sum(1), limit - 1) * (accepted > 1)
        canvas.remask(rank < count[:, None])
        canvas.memory[self] = accepted


@register_sampler("wino", paper="WINO (ICLR 2026)", recorded=("wino",))
def wino(threshold: Probability = 0.6, threshold_back: Probability = 0.9) -> Sampler:
    """Accept all above `threshold`; re-mask what the rest of the block no longer supports."""
    return Sampler(
        select=WideIn(threshold), revisions=(NarrowOut(threshold_back),), evaluate=Shadowed()
    )
