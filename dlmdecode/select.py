"""Selection rules: which positions of the open block to commit.

Rules read `canvas.confidence` (the proposals' probabilities, after the recipe's scores) and may
name any position: the loop keeps those that are open, and commits the surest open one where a
rule names none. Ties go to the lowest position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dlmdecode import ops
from dlmdecode.canvas import Canvas
from dlmdecode.checks import require, require_finite


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
class Threshold:
    """Every position at least `threshold` sure (Fast-dLLM, arXiv 2505.22618)."""

    threshold: float = 0.9

    def __post_init__(self) -> None:
        require_finite("threshold", self.threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "threshold", threshold=self.threshold)


class Quota(Protocol):
    def __call__(self, canvas: Canvas) -> Tensor: ...


@dataclass(frozen=True)
class EvenQuota:
    """What is left of the block, spread evenly over the steps it has left (LLaDA's schedule).

    `steps` counts steps per block; the first steps take the remainder.
    """

    steps: int

    def __call__(self, canvas: Canvas) -> Tensor:
        left = (self.steps - canvas.block_step).clamp(min=1)
        return -(-canvas.open.sum(1) // left)


@dataclass(frozen=True)
class TopK:
    """The surest positions, as many as `quota` says for this step (LLaDA, arXiv 2502.09992)."""

    quota: Quota

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "topk", quota=self.quota(canvas))


def steps_per_block(steps: int | None, max_new_tokens: int, block_length: int | None) -> int:
    """Steps of each block when `steps` are spread evenly over all of them (None: one per token).

    Raises `ValueError` where the blocks do not divide the text, or the steps the blocks.
    """
    block_length = max_new_tokens if block_length is None else block_length
    require(
        max_new_tokens % block_length == 0,
        "block_length",
        block_length,
        f"a fixed schedule needs blocks that divide max_new_tokens={max_new_tokens}",
    )
    num_blocks = max_new_tokens // block_length
    steps = max_new_tokens if steps is None else steps
    require(
        steps >= 1 and steps % num_blocks == 0,
        "steps",
        steps,
        f"give a multiple of the number of blocks, {num_blocks} "
        f"(max_new_tokens={max_new_tokens} / block_length={block_length})",
    )
    return steps // num_blocks
