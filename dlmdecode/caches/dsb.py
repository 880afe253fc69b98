"""DSB's cache (arXiv 2602.05992)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.sliding import SlidingCache
from dlmdecode.checks import Natural, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.models.protocol import Denoiser


@register_cache("dsb", paper="DSB (arXiv 2602.05992)", recorded=("dsb", "dream-dsb"))
class DelayedSpan(SlidingCache):
    """DSB's: recompute from behind the window's last move, refresh every so many tokens.

    At least `prefix_window` positions before the window are recomputed, and `suffix_window` behind
    it. DSB refreshes once the tokens of a block are written: `refresh` is its block length.
    """

    def __init__(
        self,
        model: Denoiser,
        prefix_window: int = 24,
        suffix_window: int = 0,
        refresh: int = 32,
    ):
        super().__init__(model, "dsb", refresh)
        self.before = conform("prefix_window", prefix_window, Natural)
        self.behind = conform("suffix_window", suffix_window, Natural)

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        lo = torch.minimum(before, rows.lo - self.before).clamp(min=0)
        return lo, rows.hi + self.behind
