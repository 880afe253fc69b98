"""Caches that follow a window which slides with every step: DSB's and DCD's."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches.base import visible
from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.registry import register_cache
from dlmdecode.checks import Count, Natural, OneOf, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.models.protocol import Denoiser, KeyValueHook

Kept = Annotated[str, OneOf(("dual", "prefix"))]


class SlidingCache(BlockCache):
    """A row is refreshed when it has `refresh` tokens more than at its last refresh.

    In between it recomputes what `ends` says, which reaches back over the tokens that were just
    written: they leave the window, and what is kept of them was computed while they were masks.
    Raises `ValueError` as `BlockCache` does.
    """

    slides = True

    def __init__(self, model: Denoiser, name: str, refresh: int):
        super().__init__(model, dual=True, name=name)
        self.every = conform("refresh", refresh, Count)
        self.written = torch.empty(0, dtype=torch.int64)  # (R,) tokens at the last refresh
        self.lo = self.written  # (R,) where the window began in the last forward

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.begin(rows)
        out = super().states(rows, wanted)
        self.lo[rows.row] = rows.lo
        return out

    def begin(self, rows: Canvas) -> None:
        """Room for these rows; new ones were never refreshed."""
        self.store.fit(rows)
        if more := self.store.num_rows - len(self.written):
            self.written, self.lo = (
                torch.cat([old.to(rows.row.device), rows.row.new_zeros(more)])
                for old in (self.written, self.lo)
            )
        self.written[rows.row[rows.nfe == 0]] = rows.tokens.shape[1] + 1  # more than a row has

    def due(self, rows: Canvas) -> list[bool]:
        since = self.count(rows) - self.written[rows.row]
        due = (since >= self.every) | (since < 0)  # before the first refresh it is negative
        return due.tolist()

    @staticmethod
    def count(rows: Canvas) -> Tensor:
        """Tokens that each row has written, (N,) int64."""
        return (rows.text & ~rows.masked).sum(1)

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.written[rows.row] = self.count(rows)
        return super().refresh(rows, wanted)

    def window(self, rows: Canvas, wanted: Positions) -> Positions:
        lo, hi = self.ends(rows, self.lo[rows.row])
        window: Positions = Span(lo, hi.minimum(rows.stop))
        if rows.suffix is not None:
            ahead = visible(rows, wanted) & window.contains(rows.position)
            self.hold(rows, self.held[rows.row, : ahead.shape[1]] | ahead)
            window = Scattered(ahead)
        return window

    def mix(self, rows: Canvas, window: Positions) -> KeyValueHook:
        """As for blocks, but what leaves the window is kept as it was computed last."""

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            row, column = rows.row.to(k.device)[:, None], window.at.to(k.device)
            for kept, new in zip(self.store.of(layer, k), (k, v), strict=True):
                kept[row, :, column] = new[:, :, self.model.shift :].transpose(1, 2)
            k, v = self.store.read(layer, rows.row, rows.tokens.shape[1])
            return k, v

        return hook

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        """What is recomputed, two (N,) int64; `before` (N,) is where the window began last time."""
        raise NotImplementedError


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
