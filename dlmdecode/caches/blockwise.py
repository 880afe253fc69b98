"""Fast-dLLM's prefix and dual caches (arXiv 2505.22618), row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.base import gather_states, keys, require_hook, view, visible
from dlmdecode.caches.registry import register_cache
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Work
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.models.protocol import Denoiser, KeyValueHook


class BlockCache:
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

    def __init__(self, model: Denoiser, dual: bool = False, name: str | None = None):
        name = name or ("dual" if dual else "prefix")
        require_hook(model, name)
        fix = "it approximates full attention; this model's blocks are causal: use 'block', exact"
        require(model.block_length is None, "cache", name, fix)
        self.model, self.dual, self.work = model, dual, Work()
        self.store: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values (R, H, L, D/H)
        self.held = torch.empty(0, dtype=torch.bool)  # (R, L) positions that the store holds

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        due = self.due(rows)
        if due.all():
            return self.refresh(rows, wanted)
        if not due.any():
            return self.recompute(rows, wanted)
        groups = [index.nonzero()[:, 0] for index in (due, ~due)]
        steps = (self.refresh, self.recompute)
        parts = [
            step(rows.take(index), wanted.take(index))
            for step, index in zip(steps, groups, strict=True)
        ]
        return join(parts, torch.cat(groups).argsort())

    def due(self, rows: Canvas) -> Tensor:
        """Rows to refresh, (N,) bool."""
        return rows.block_full & (rows.branch == 0)

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        at, shown = view(rows, wanted)

        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if layer not in self.store:
                shape = (len(self.held), k.shape[1], rows.tokens.shape[1], k.shape[3])
                self.store[layer] = k.new_zeros(shape), v.new_zeros(shape)
            for kept, new in zip(self.store[layer], (k, v), strict=True):
                kept[rows.row[:, None], :, at] = new.transpose(1, 2)
            return k, v

        if not len(self.held):
            self.held = torch.zeros_like(rows.tokens[:1], dtype=torch.bool)
            self.held = self.held.repeat(int(rows.row.max()) + 1, 1)
        self.held[rows.row] = visible(rows, wanted)
        tokens = rows.tokens.gather(1, at)
        self.work.add(tokens)
        hidden = self.model.encode(tokens, at, self.model.attention(at, at, shown), keep)
        read = (wanted.at - self.model.shift).clamp(min=0)
        return self.model.head(gather_states(hidden, read)), wanted

    def shown(self, rows: Canvas) -> Tensor:
        """Positions that a row's queries see, kept or computed anew, (N, L) bool."""
        return self.held[rows.row] & (rows.position < rows.stop[:, None])

    def window(self, rows: Canvas, wanted: Positions) -> Positions:
        """The positions that are recomputed."""
        if self.dual:
            return Span(rows.lo, rows.hi)
        if rows.suffix is None:
            return Span(rows.lo, rows.stop)
        return Scattered(self.shown(rows)).within(rows.lo, rows.stop)

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window = self.window(rows, wanted)
        hidden = self.encode(rows, window, self.query(window))
        wanted = wanted.within(window.lo, window.hi)
        return self.model.head(gather_states(hidden, window.column(wanted.at))), wanted

    def query(self, window: Positions) -> Tensor:
        """The window's positions, and before them one more where logits are shifted, (N, W)."""
        before = (window.lo[:, None] - 1).clamp(min=0)
        return torch.cat([before, window.at], 1) if self.model.shift else window.at

    def encode(self, rows: Canvas, window: Positions, query: Tensor) -> Tensor:
        """States (N, W, D) at the query positions, each row against its own keys and values."""
        tokens = rows.tokens.gather(1, query)
        self.work.add(tokens)
        attend = self.model.attention(query, rows.position, keys(self.shown(rows)))
        return self.model.encode(tokens, query, attend, self.mix(rows, window))

    def mix(self, rows: Canvas, window: Positions) -> KeyValueHook:
        """Puts the fresh keys and values of the window among those that are kept."""
        whole = bool((rows.branch == 0).all()) and len(rows) == len(self.held)

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            index = window.at[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
            kept = self.store[layer] if whole else [old[rows.row] for old in self.store[layer]]
            new = (k[:, :, self.model.shift :], v[:, :, self.model.shift :])
            k, v = (old.scatter_(2, index, one) for old, one in zip(kept, new, strict=True))
            return k, v

        return hook


def join(parts: list[tuple[Tensor, Positions]], order: Tensor) -> tuple[Tensor, Positions]:
    """Logits and positions of several groups of rows as one, in `order`, short rows padded."""
    positions = [computed for _, computed in parts]
    whole = type(positions[0]).cat(positions).take(order)  # type: ignore[arg-type]
    logits = parts[0][0].new_zeros(len(order), whole.width, parts[0][0].shape[-1])
    first = 0
    for some, computed in parts:
        logits[first : first + len(some), : computed.width] = some
        first += len(some)
    return logits[order], whole


@register_cache("prefix", paper="Fast-dLLM (arXiv 2505.22618)")
def prefix_cache(model: Denoiser) -> BlockCache:
    """Keep what stands before the open block; refresh when the block is full. Approximate."""
    return BlockCache(model)


@register_cache("dual", paper="Fast-dLLM (arXiv 2505.22618)")
def dual_cache(model: Denoiser) -> BlockCache:
    """Keep everything outside the open block; refresh when the block is full. Approximate."""
    return BlockCache(model, dual=True)
