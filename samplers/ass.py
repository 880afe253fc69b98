"""ASS (ascending step size; EOSER-ASS-RL's code): commit 1, 2, 4, 8, … tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Count, NonNegative, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks
from dlmdecode.parts.scores import EosFactor
from dlmdecode.parts.select import TopK
from dlmdecode.registry import register_sampler


def num_steps(canvas: Canvas) -> Tensor:
    """Steps of a text of G tokens, floor(log2 G), (B,)."""
    return canvas.length.double().log2().floor().long()


@dataclass(frozen=True)
class DoublingQuota:
    """2^i tokens at step i, and everything that is left at the last step."""

    def __call__(self, canvas: Canvas) -> Tensor:
        last = canvas.step >= num_steps(canvas) - 1
        return torch.where(last, canvas.open.sum(1), 2**canvas.step)


@dataclass(frozen=True)
class DoublingBlocks(BlockSchedule):
    """The last `num_blocks` − 1 steps each get a block of their own, which they fill."""

    num_blocks: int = 1

    def reach(self, canvas: Canvas) -> Tensor:
        return canvas.length

    def __call__(self, canvas: Canvas) -> Tensor:
        written, steps = canvas.before(canvas.lo), num_steps(canvas)
        first = 2 ** (steps - self.num_blocks + 1).clamp(min=0) - 1
        length = torch.where(written == 0, first, written + 1)
        last = (written >= 2 ** (steps - 1) - 1) | (self.num_blocks == 1)
        return torch.where(last, canvas.length - written, length.clamp(min=1))


@dataclass(frozen=True)
class AscendingEosRejection(EosFactor):
    """EOSER over the doubling schedule: the factor grows with the tokens this step completes."""

    def progress(self, canvas: Canvas) -> Tensor:
        return (2.0 ** (canvas.step + 1) - 1) / 2.0 ** num_steps(canvas)


@register_sampler("ass", paper="EOSER-ASS-RL (ICLR 2026 submission)", recorded=("eoser-ass",))
def ass(
    num_blocks: Count = 1,
    gamma_min: NonNegative = 1.0,
    gamma_max: NonNegative = 1.0,
    max_new_tokens: Count = 256,
    block_length: Count | None = None,
) -> Sampler:
    """Commit 1, 2, 4, 8, … tokens, log2 of the length in steps; gamma_min < 1 adds EOSER to it."""
    steps = max(max_new_tokens.bit_length() - 1, 1)
    fix = f"{max_new_tokens} tokens take {steps} steps: give no more blocks"
    require(num_blocks <= steps, "num_blocks", num_blocks, fix)
    fixed = block_length is not None
    fix = "with block_length all blocks are alike: give one of them"
    require(not fixed or num_blocks == 1, "num_blocks", num_blocks, fix)
    ordered = gamma_min <= gamma_max
    require(ordered, "gamma_min", gamma_min, f"give at most gamma_max={gamma_max}")
    rejects = (gamma_min, gamma_max) != (1.0, 1.0)
    return Sampler(
        select=TopK(DoublingQuota()),
        blocks=FixedBlocks(block_length) if block_length else DoublingBlocks(num_blocks),
        scores=(AscendingEosRejection(gamma_min, gamma_max),) if rejects else (),
    )
