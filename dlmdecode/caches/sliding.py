"""Caches that follow a window which slides with every step, such as DSB's and DCD's."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.store import nothing
from dlmdecode.caches.view import visible
from dlmdecode.checks import Count, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.models.protocol import Denoiser, KeyValueHook


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
        self.written = nothing(1, torch.int64)  # (R,) tokens at the last refresh
        self.lo = self.written  # (R,) where the window began in the last forward

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.begin(rows)
        out = super().states(rows, wanted)
        self.lo[rows.row] = rows.lo
        return out

    def begin(self, rows: Canvas) -> None:
        """Room for these rows; new ones were never refreshed."""
        self.store.fit(rows)
        self.written = self.store.room(self.written, rows)
        self.lo = self.store.room(self.lo, rows)
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
            shift = self.model.shift
            self.store.put(layer, rows.row, window.at, k[:, :, shift:], v[:, :, shift:])
            k, v = self.store.read(layer, rows.row, rows.tokens.shape[1])
            return k, v

        return hook

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        """What is recomputed, two (N,) int64; `before` (N,) is where the window began last time."""
        raise NotImplementedError
