"""Fast-dLLM's prefix and dual caches (arXiv 2505.22618), row by row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches.base import (
    attention_mask,
    gather_states,
    keys,
    require_full_attention,
    require_hook,
    shifted,
    view,
    visible,
)
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import Store
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
        self.held = torch.empty(0, 0, dtype=torch.bool)  # (R, L) what a suffix window left in it

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        due = self.due(rows)
        if all(due):
            return self.refresh(rows, wanted)
        if not any(due):
            return self.recompute(rows, wanted)
        every = range(len(rows))
        chosen = ([i for i in every if due[i]], [i for i in every if not due[i]])
        groups = [torch.tensor(index, device=rows.lo.device) for index in chosen]
        steps = (self.refresh, self.recompute)
        parts = [
            step(rows.take(index), wanted.take(index))
            for step, index in zip(steps, groups, strict=True)
        ]
        return join(parts, torch.cat(groups).argsort())

    def due(self, rows: Canvas) -> list[bool]:
        """Which rows to refresh."""
        return [row.full and row.branch == 0 for row in rows.seen]

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        tokens, at, shown = view(rows, wanted)

        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            row, column = rows.row.to(k.device)[:, None], at.to(k.device)
            for kept, new in zip(self.store.of(layer, k), (k, v), strict=True):
                kept[row, :, column] = new.transpose(1, 2)
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
        num_rows, length = self.held.shape
        more = (0, self.store.length - length, 0, self.store.num_rows - num_rows)
        if any(more):
            self.held = F.pad(self.held.to(where.device), more)
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
        drafts = any(row.branch for row in rows.seen)
        whole = not drafts and len(rows) == self.store.num_rows
        length = rows.tokens.shape[1]

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            index = window.at.to(k.device)[:, None, :, None]
            index = index.expand(-1, k.shape[1], -1, k.shape[3])
            if whole:  # rows stand in order: what they keep need not be copied
                kept = [old[:, :, :length] for old in self.store.of(layer, k)]
            else:
                kept = self.store.read(layer, rows.row, length)
            new = (k[:, :, self.model.shift :], v[:, :, self.model.shift :])
            k, v = (old.scatter_(2, index, one) for old, one in zip(kept, new, strict=True))
            return k, v

        return hook


def join(parts: list[tuple[Tensor, Positions]], order: Tensor) -> tuple[Tensor, Positions]:
    """States and positions of several groups of rows as one, in `order`, short rows padded."""
    positions = [computed for _, computed in parts]
    whole = type(positions[0]).cat(positions).take(order)  # type: ignore[arg-type]
    states = parts[0][0].new_zeros(len(order), whole.width, parts[0][0].shape[-1])
    first = 0
    for some, computed in parts:
        states[first : first + len(some), : computed.width] = some
        first += len(some)
    return states[order], whole


@register_cache("prefix", paper="Fast-dLLM (arXiv 2505.22618)", recorded=("fastdllm",))
def prefix_cache(model: Denoiser) -> BlockCache:
    """Keep what stands before the open block; refresh when the block is full. Approximate."""
    return BlockCache(model)


@register_cache("dual", paper="Fast-dLLM (arXiv 2505.22618)", recorded=("fastdllm",))
def dual_cache(model: Denoiser) -> BlockCache:
    """Keep everything outside the open block; refresh when the block is full. Approximate."""
    return BlockCache(model, dual=True)
