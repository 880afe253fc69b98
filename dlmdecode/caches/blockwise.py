"""What Fast-dLLM's caches (arXiv 2505.22618) do, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.base import gather_states, require_full_attention, require_hook, shifted
from dlmdecode.caches.groups import either
from dlmdecode.caches.store import Store, nothing
from dlmdecode.caches.view import attention_mask, keys, view, visible
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Headed, Work
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook


class BlockCache(Headed):
    """What stands outside a window is kept, until a row's block is full.

    That row is then due for a refresh: a forward over its whole canvas, whose keys and values are
    kept. Other rows recompute `[lo, stop)` (prefix) or `[lo, hi)` (dual) against what is kept
    outside. What was not visible at a row's last refresh stays so until the next. Keys and values
    are stored by `rows.row`, so drafting, picking and dropping rows never touch the store. Where
    logits are shifted, the position before the block is recomputed as a query only: its kept keys
    and values stay.

    Raises `ValueError` for a model without a key/value hook, and for one whose attention is causal
    between blocks.
    """

    slides: bool = False
    gaps = True

    def __init__(self, model: Denoiser, dual: bool = False, name: str | None = None):
        name = name or ("dual" if dual else "prefix")
        require_hook(model, name)
        require_full_attention(model, name)
        self.model, self.dual, self.work = model, dual, Work()
        self.store = Store()
        self.held = nothing(2, torch.bool)  # (R, L) what a suffix window left in it

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        return either(self.due(rows), rows, wanted, self.refresh, self.recompute)

    def due(self, rows: Canvas) -> list[bool]:
        """Which rows to refresh."""
        return [row.full and row.branch == 0 for row in rows.seen]

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        tokens, at, shown = view(rows, wanted)

        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            self.store.put(layer, rows.row, at, k, v)
            return k, v

        self.store.fit(rows)
        if rows.suffix is not None:
            self.hold(rows, visible(rows, wanted))
        self.work.add(tokens)
        self.work.refreshes += len(rows)
        hidden = self.model.encode(tokens, at, self.model.attention(at, at, shown), keep)
        return gather_states(hidden, shifted(wanted, self.model)), wanted

    def hold(self, rows: Canvas, where: Tensor) -> None:
        """Of these rows the store holds `where` (N, L) bool."""
        self.held = self.store.room(self.held, rows)
        self.held[rows.row, : where.shape[1]] = where

    def shown(self, rows: Canvas) -> Tensor:
        """Positions that a row's queries see, kept or computed anew, (N, L) bool."""
        here = rows.position < rows.stop[:, None]
        if rows.suffix is None:
            return here
        return here & self.held[rows.row, : here.shape[1]]

    def window(self, rows: Canvas, wanted: Positions) -> Positions:
        """The positions that are recomputed."""
        if self.dual:
            return rows.block_span
        if rows.suffix is None:
            return rows.rest_span
        return Scattered(self.shown(rows)).within(rows.lo, rows.stop)

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window = self.window(rows, wanted)
        hidden = self.encode(rows, window, self.query(window))
        inside = wanted is rows.block_span or wanted is rows.open_positions
        if self.slides or not inside:
            wanted = wanted.within(window.lo, window.hi)
        if self.model.shift or wanted is not window:  # else all states are wanted
            hidden = gather_states(hidden, window.column(wanted.at))
        return hidden, wanted

    def query(self, window: Positions) -> Tensor:
        """The window's positions, and before them one more where logits are shifted, (N, W)."""
        if not self.model.shift:
            return window.at
        before = (window.lo[:, None] - 1).clamp(min=0)
        return torch.cat([before, window.at], 1)

    def encode(self, rows: Canvas, window: Positions, query: Tensor) -> Tensor:
        """States (N, W, D) at the query positions, each row against its own keys and values."""
        tokens = rows.tokens.gather(1, query)
        self.work.add(tokens)
        if rows.suffix is None:
            attend = attention_mask(self.model, rows, query, rows.tokens.shape[1])
        else:
            attend = self.model.attention(query, rows.position, keys(self.shown(rows)))
        return self.model.encode(tokens, query, attend, self.mix(rows, window))

    def mix(self, rows: Canvas, window: Positions) -> KeyValueHook:
        """Puts the fresh keys and values of the window among those that are kept."""
        return self.store.beside(rows, window.at, rows.tokens.shape[1], self.model.shift)
