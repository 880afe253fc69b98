"""ASS (ascending step size; EOSER-ASS-RL's code): commit 1, 2, 4, 8, … tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import require
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler
from dlmdecode.select import TopK


def num_steps(canvas: Canvas) -> Tensor:
    """Steps of a text of G tokens, floor(log2 G), (B,)."""
    return (canvas.stop - canvas.start).double().log2().floor().long()


@dataclass(frozen=True)
class DoublingQuota:
    """2^i tokens at step i, and everything that is left at the last step."""

    def __call__(self, canvas: Canvas) -> Tensor:
        last = canvas.step >= num_steps(canvas) - 1
        return torch.where(last, canvas.open.sum(1), 2**canvas.step)


@dataclass(frozen=True)
class DoublingBlocks:
    """The last `num_blocks` − 1 steps each get a block of their own, which they fill."""

    num_blocks: int = 1

    def reach(self, canvas: Canvas) -> Tensor:
        return canvas.stop - canvas.start

    def __call__(self, canvas: Canvas) -> Tensor:
        written, steps = canvas.lo - canvas.start, num_steps(canvas)
        first = 2 ** (steps - self.num_blocks + 1).clamp(min=0) - 1
        length = torch.where(written == 0, first, written + 1)
        last = (written >= 2 ** (steps - 1) - 1) | (self.num_blocks == 1)
        return torch.where(last, canvas.stop - canvas.lo, length.clamp(min=1))


@dataclass(frozen=True)
class AscendingEosRejection:
    """EOSER's factor over the doubling schedule: it grows with the tokens this step completes."""

    low: float
    high: float

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        share = (2.0 ** (canvas.step + 1) - 1) / 2.0 ** num_steps(canvas)
        factor = self.low + (self.high - self.low) * share
        ends = canvas.is_eos(canvas.proposal.token)
        return torch.where(ends, confidence * factor[:, None], confidence)


@register_sampler("ass", paper="EOSER-ASS-RL (ICLR 2026 submission)")
def ass(num_blocks: int = 1, gamma_min: float = 1.0, gamma_max: float = 1.0) -> Sampler:
    """Commit 1, 2, 4, 8, … tokens, log2 of the length in steps; gamma_min < 1 adds EOSER to it."""
    require(num_blocks >= 1, "num_blocks", num_blocks, "give at least 1")
    rejects = (gamma_min, gamma_max) != (1.0, 1.0)
    return Sampler(
        select=TopK(DoublingQuota()),
        blocks=DoublingBlocks(num_blocks),
        scores=(AscendingEosRejection(gamma_min, gamma_max),) if rejects else (),
    )
