"""DCD (deferred commitment decoding, arXiv 2601.02076): a window that holds so many masks."""

from __future__ import annotations

from dlmdecode.checks import Count, require
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import MaskWindow
from dlmdecode.registry import register_sampler


@register_sampler("dcd", over="threshold", paper="arXiv 2601.02076", recorded=("dcd",))
def dcd(max_window: Count = 128, block_length: Count | None = 16) -> Sampler:
    """Slide a window that holds `block_length` masks and at most `max_window` positions.

    Its cache is cache="dcd". An EOS does not end what still stands open before it.
    """
    fix = "it is the number of masks in the window: give one"
    require(block_length is not None, "block_length", None, fix)
    return Sampler(blocks=MaskWindow(block_length, max_window))  # type: ignore[arg-type]
