"""Fast-dLLM's prefix and dual caches (arXiv 2505.22618), row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.base import attention_mask, first, gather_states, require_hook, shifted
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import Store
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Work
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.models.protocol import Denoiser


class BlockCache:
    """What stands outside a window is kept, until a row's block is full.

    That row is then due for a refresh: a forward over its whole canvas, whose keys and values are
    kept. Other rows recompute `[lo, stop)` (prefix) or `[lo, hi)` (dual) against what is kept
    outside. Keys and values are stored by `rows.row`, so drafting, picking and dropping rows never
    touch the store. Where logits are shifted, the position before the block is recomputed as a
    query only: its kept keys and values stay.

    Raises `ValueError` for a model without a key/value hook, and for one whose attention is causal
    between blocks.
    """

    def __init__(self, model: Denoiser, dual: bool = False):
        name = "dual" if dual else "prefix"
        require_hook(model, name)
        fix = "it approximates full attention; this model's blocks are causal: use 'block', exact"
        require(model.block_length is None, "cache", name, fix)
        self.model, self.dual, self.work = model, dual, Work()
        self.store = Store()

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        due = [row.full and row.branch == 0 for row in rows.seen]
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

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            for kept, new in zip(self.store.of(layer, k), (k, v), strict=True):
                kept[rows.row.to(k.device), :, : new.shape[2]] = new
            return k, v

        self.store.fit(rows)
        length = max(row.stop for row in rows.seen)
        tokens, position = first(rows.tokens, length), first(rows.position, length)
        self.work.add(tokens)
        attend = attention_mask(self.model, rows, position, length)
        hidden = self.model.encode(tokens, position, attend, keep)
        return self.model.head(gather_states(hidden, shifted(wanted, self.model))), wanted

    def window(self, rows: Canvas) -> Span:
        """The positions that are recomputed."""
        return rows.block_span if self.dual else rows.rest_span

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window, shift = self.window(rows), self.model.shift
        query = Span(rows.lo - shift, window.hi) if shift else window
        hidden = self.encode(rows, window, query)
        if wanted is not rows.block_span:
            wanted = wanted.within(window.lo, window.hi)
        if wanted is not query:  # else all states are wanted
            hidden = gather_states(hidden, wanted.at - rows.lo[:, None])
        return self.model.head(hidden), wanted

    def encode(self, rows: Canvas, window: Span, query: Span) -> Tensor:
        """States (N, W, D) of the query positions, each row against its own keys and values."""
        drafts = any(row.branch for row in rows.seen)
        whole = not drafts and len(rows) == self.store.num_rows
        length = rows.tokens.shape[1]

        def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            index = window.at.to(k.device)[:, None, :, None]
            index = index.expand(-1, k.shape[1], -1, k.shape[3])
            if whole:  # rows stand in order: what they keep need not be copied
                kept = [old[:, :, :length] for old in self.store.of(layer, k)]
            else:
                kept = self.store.read(layer, rows.row, length)
            new = (k[:, :, self.model.shift :], v[:, :, self.model.shift :])
            k, v = (old.scatter_(2, index, one) for old, one in zip(kept, new, strict=True))
            return k, v

        tokens = rows.tokens.gather(1, query.at)
        self.work.add(tokens)
        attend = attention_mask(self.model, rows, query.at, length)
        return self.model.encode(tokens, query.at, attend, mix)


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
