"""LLaDA's own decoding (arXiv 2502.09992): a fixed number of tokens per step, the surest first."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import closest, require
from dlmdecode.noise import uniform
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler
from dlmdecode.select import EvenQuota, TopK, steps_per_block

REMASKING = ("low_confidence", "random")


@dataclass(frozen=True)
class RandomOrder:
    """Confidences that are random instead: a fresh order at every step, fixed by the seed."""

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return uniform(canvas.stream[:, None], canvas.position, canvas.step[:, None])


@register_sampler("vanilla", paper="arXiv 2502.09992")
def vanilla(
    steps: int | None = None,
    remasking: str = "low_confidence",
    max_new_tokens: int = 256,
    block_length: int | None = 32,
) -> Sampler:
    """Fill the canvas block by block in `steps` steps altogether (None: one token per step)."""
    per_block = steps_per_block(steps, max_new_tokens, block_length)
    known = remasking in REMASKING
    require(
        known, "remasking", remasking, f"give one of {REMASKING}{closest(remasking, REMASKING)}"
    )
    scores = (RandomOrder(),) if remasking == "random" else ()
    return Sampler(select=TopK(EvenQuota(per_block)), scores=scores)
