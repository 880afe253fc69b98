"""DCD (deferred commitment decoding, arXiv 2601.02076): a window that holds so many masks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Count, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.remasking import first
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class MaskWindow(BlockSchedule):
    """From a row's first mask to its `masks`-th one, at most `longest` positions.

    What is uncertain is put off: the window grows around it, until it is as long as it may be.
    """

    slides = True
    masks: int = 16
    longest: int = 128

    def __post_init__(self) -> None:
        whole("block_length", self.masks)
        whole("max_window", self.longest, self.masks)

    def reach(self, canvas: Canvas) -> Tensor:
        last = first(canvas.masked.cumsum(1) >= self.masks)  # the canvas's end where there are less
        length = canvas.before(last + 1) - canvas.before(canvas.lo)
        return length.clamp(max=self.longest)

    __call__ = reach


@register_sampler("dcd", over="threshold", paper="arXiv 2601.02076", recorded=("dcd",))
def dcd(max_window: Count = 128, block_length: Count | None = 16) -> Sampler:
    """Slide a window that holds `block_length` masks and at most `max_window` positions.

    Its cache is cache="dcd". An EOS does not end what still stands open before it.
    """
    fix = "it is the number of masks in the window: give one"
    require(block_length is not None, "block_length", None, fix)
    return Sampler(blocks=MaskWindow(block_length, max_window))  # type: ignore[arg-type]
