"""DCD's cache (arXiv 2601.02076)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.sliding import SlidingCache
from dlmdecode.checks import Natural, OneOf, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.models.protocol import Denoiser

Kept = Annotated[str, OneOf(("dual", "prefix"))]


@register_cache("dcd", paper="DCD (arXiv 2601.02076)", recorded=("dcd",))
class DelayedWindow(SlidingCache):
    """DCD's: recompute `delay` positions around the window and where it was, refresh seldom.

    `delay=none` recomputes the window alone. `kept="prefix"` recomputes all that stands behind the
    window, too, "dual" keeps it.
    """

    def __init__(
        self, model: Denoiser, delay: int | None = 2, kept: str = "dual", refresh: int = 32
    ):
        super().__init__(model, "dcd", refresh)
        self.delay = conform("delay", delay, Natural | None)
        self.all_behind = conform("kept", kept, Kept) == "prefix"

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        lo, hi = rows.lo, rows.hi
        if self.delay is not None:
            lo = torch.maximum(before - self.delay, rows.start)
            hi = hi + self.delay
        return lo, rows.stop if self.all_behind else hi
