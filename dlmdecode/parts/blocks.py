"""Block schedules: how long the next block is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule, Evaluation
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.remasking import first


@dataclass(frozen=True)
class FixedBlocks(BlockSchedule):
    """Blocks of `length` positions, left to right; the last one may be shorter."""

    gives_way = True
    length: int = 32

    def __post_init__(self) -> None:
        whole("block_length", self.length)

    def bind(self, model: Denoiser) -> FixedBlocks:
        """Blocks of a model whose attention is causal between blocks stand where its own do."""
        return self if model.block_length is None else AlignedBlocks(self.length)

    def reach(self, canvas: Canvas) -> Tensor:
        return torch.full_like(canvas.lo, self.length)

    __call__ = reach


@dataclass(frozen=True)
class AlignedBlocks(FixedBlocks):
    """Blocks of `length` positions counted from position 0.

    The end of a prompt shares the first one, and the last one ends with the text.
    """

    def reach(self, canvas: Canvas) -> Tensor:
        return self.length - canvas.hi % self.length  # the next block begins where this one ends

    __call__ = reach


@dataclass(frozen=True)
class WholeCanvas(BlockSchedule):
    """One block: any masked position may be committed at any step."""

    def reach(self, canvas: Canvas) -> Tensor:
        return canvas.length

    __call__ = reach


@dataclass(frozen=True)
class MaskWindow(BlockSchedule):
    """From a row's first mask to its `masks`-th one, at most `longest` positions if not None.

    What is uncertain is put off: the window grows around it, until it is as long as it may be.
    """

    slides = True
    masks: int = 16
    longest: int | None = None

    def __post_init__(self) -> None:
        whole("block_length", self.masks)
        if self.longest is not None:
            whole("max_window", self.longest, self.masks)

    def reach(self, canvas: Canvas) -> Tensor:
        last = first(canvas.masked.cumsum(1) >= self.masks)  # the canvas's end where there are less
        length = canvas.before(last + 1) - canvas.before(canvas.lo)
        return length if self.longest is None else length.clamp(max=self.longest)

    __call__ = reach


def blocks_of(block_length: int | None) -> FixedBlocks | WholeCanvas:
    """The schedule that the `block_length` argument of `generate` means."""
    return WholeCanvas() if block_length is None else FixedBlocks(block_length)


def check_blocks(
    block_length: int | str | None, steps: int | None, length: int, model: Denoiser
) -> None:
    """Refuse blocks that cross those of a block-causal model, and fewer steps than it has blocks.

    Args:
        block_length, steps: of the call; "auto" is the model's own block.
        length: positions of the text.
    """
    own = model.block_length
    if own is None:
        return
    if isinstance(block_length, int):
        fix = f"the model's blocks have {own} positions: give a multiple or a divisor, or None"
        fits = block_length % own == 0 or own % block_length == 0
        require(fits, "block_length", block_length, fix)
    if steps is not None and block_length == "auto":
        least = -(-length // own)
        fix = f"the model's blocks have {own} positions: give at least {least}, one for each"
        require(steps >= least, "steps", steps, fix)


def check_suffix(suffix: int | None, tail: int, recipe: Sampler, model: Denoiser) -> None:
    """Refuse a suffix window that has no effect, and where proposals outside it are read.

    Args:
        suffix, tail: of the call.
        recipe: bound to the model.
    """
    if suffix is None:
        return
    fix = "its attention is causal between blocks, so that no later one is seen: leave it out"
    require(model.block_length is None, "suffix", suffix, fix)
    fix = "one block over the whole canvas has nothing behind it: give a block_length"
    require(not isinstance(recipe.blocks, WholeCanvas), "suffix", suffix, fix)
    for part in recipe.parts:
        fix = f"{type(part).__name__} reads proposals of the whole canvas: leave it out"
        require(not part.reads_canvas, "suffix", suffix, fix)
        own = isinstance(part, Evaluation) and not part.sees_suffix
        fix = f"{type(part).__name__} is a forward of its own over the whole canvas: leave it out"
        require(not own, "suffix", suffix, fix)
    fix = "its call takes no position_ids, so that it sees no gaps: leave it out"
    require(tail == 0 or model.takes_positions, "suffix_tail", tail, fix)
