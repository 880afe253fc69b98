"""DSB (arXiv 2602.05992): a block that slides on with every token it gets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Count, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class SlidingBlock(BlockSchedule):
    """From a row's first mask to `length` positions beyond as many as the text has tokens.

    Its end moves by one for each token that is committed anywhere. `longest` limits the block,
    which grows while its first mask stays.
    """

    slides = True
    length: int = 32
    longest: int | None = None

    def __post_init__(self) -> None:
        whole("block_length", self.length)
        if self.longest is not None:
            whole("max_block_length", self.longest)

    def reach(self, canvas: Canvas) -> Tensor:
        written = (canvas.text & ~canvas.masked).sum(1)
        length = self.length + written - canvas.before(canvas.lo)
        return length if self.longest is None else length.clamp(max=self.longest)

    __call__ = reach


@register_sampler("dsb", over="threshold", paper="arXiv 2602.05992", recorded=("dsb", "dream-dsb"))
def dsb(max_block_length: Count | None = None, block_length: Count | None = 32) -> Sampler:
    """Slide the block's start to the first mask and its end on by one for each token committed.

    DSB's constant block has `max_block_length` equal to `block_length`, its greedy one none. Its
    cache is cache="dsb,refresh=…" with the block length.
    """
    fix = "it is the length of the first window: give a number"
    require(block_length is not None, "block_length", None, fix)
    return Sampler(blocks=SlidingBlock(block_length, max_block_length))  # type: ignore[arg-type]
