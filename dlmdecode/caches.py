"""Cache policies: how the rows of a canvas reach the model, and which keys and values are kept.

A policy is a `Forward`. Rules never notice it: it returns logits for fewer positions and says
which, and the proposals elsewhere keep their last value. Shapes as in `models/base.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas, Span
from dlmdecode.checks import require
from dlmdecode.models.base import Denoiser


@dataclass
class Work:
    """What a decoding cost: model calls, rows over all calls, token positions over all rows."""

    calls: int = 0
    rows: int = 0
    positions: int = 0

    def add(self, tokens: Tensor) -> None:
        self.calls += 1
        self.rows += tokens.shape[0]
        self.positions += tokens.numel()


def visible(stop: Tensor, length: int) -> Tensor | None:
    """Keys before `stop` (N,), as a mask (N, 1, 1, length); None where nothing is hidden."""
    if bool((stop >= length).all()):
        return None
    return (torch.arange(length, device=stop.device) < stop[:, None])[:, None, None]


def gather_states(hidden: Tensor, index: Tensor) -> Tensor:
    """Hidden states (N, W, D) at columns `index` (N, W) of `hidden` (N, ·, D)."""
    return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))


class NoCache:
    """Every forward recomputes the whole canvas."""

    def __init__(self, model: Denoiser):
        self.model, self.work = model, Work()

    def __call__(self, rows: Canvas, wanted: Span) -> tuple[Tensor, Span]:
        length = int(rows.stop.max())
        tokens = rows.tokens[:, :length]
        self.work.add(tokens)
        hidden = self.model.encode(tokens, rows.position[:, :length], visible(rows.stop, length))
        at = (wanted.at - self.model.shift).clamp(min=0)
        return self.model.head(gather_states(hidden, at)), wanted


class BlockCache:
    """Fast-dLLM's prefix and dual caches (arXiv 2505.22618), row by row.

    A row whose block is full is due for a refresh: a forward over its whole canvas, whose keys and
    values are kept. Other rows recompute `[lo, stop)` (prefix) or `[lo, hi)` (dual) against what is
    kept outside. Keys and values are stored by `rows.row`, so drafting, picking and dropping rows
    never touch the store. Where logits are shifted, the position before the block is recomputed as
    a query only: its kept keys and values stay. `tree` evaluates the drafts of a sequence as one
    packed row that reads the store once.
    """

    def __init__(self, model: Denoiser, dual: bool = False, tree: bool = False):
        self.model, self.dual, self.tree, self.work = model, dual, tree, Work()
        self.store: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values (R, H, L, D/H)

    def __call__(self, rows: Canvas, wanted: Span) -> tuple[Tensor, Span]:
        due = rows.block_full & (rows.branch == 0)
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

    def refresh(self, rows: Canvas, wanted: Span) -> tuple[Tensor, Span]:
        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if layer not in self.store:
                num_rows, (_, heads, _, dim) = int(rows.row.max()) + 1, k.shape
                shape = (num_rows, heads, rows.tokens.shape[1], dim)
                self.store[layer] = k.new_zeros(shape), v.new_zeros(shape)
            for kept, new in zip(self.store[layer], (k, v), strict=True):
                kept[rows.row, :, : new.shape[2]] = new
            return k, v

        length = int(rows.stop.max())
        tokens = rows.tokens[:, :length]
        self.work.add(tokens)
        attend = visible(rows.stop, length)
        hidden = self.model.encode(tokens, rows.position[:, :length], attend, keep)
        at = (wanted.at - self.model.shift).clamp(min=0)
        return self.model.head(gather_states(hidden, at)), wanted

    def window(self, rows: Canvas) -> Span:
        """The positions that are recomputed."""
        return Span(rows.lo, rows.hi if self.dual else rows.stop)

    def recompute(self, rows: Canvas, wanted: Span) -> tuple[Tensor, Span]:
        window, shift = self.window(rows), self.model.shift
        query = Span(rows.lo - shift, window.hi)
        drafts = bool((rows.branch > 0).any())
        encode = self.encode_tree if drafts and self.tree else self.encode_rows
        hidden = encode(rows, window, query)
        wanted = wanted.clip(window.lo, window.hi)
        return self.model.head(gather_states(hidden, wanted.at - rows.lo[:, None])), wanted

    def encode_rows(self, rows: Canvas, window: Span, query: Span) -> Tensor:
        """States (N, W, D) of the query positions, each row against its own keys and values."""
        whole = bool((rows.branch == 0).all()) and len(rows) == len(self.store[0][0])

        def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            index = window.at[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
            kept = self.store[layer] if whole else [old[rows.row] for old in self.store[layer]]
            new = (k[:, :, self.model.shift :], v[:, :, self.model.shift :])
            k, v = (old.scatter_(2, index, one) for old, one in zip(kept, new, strict=True))
            return k, v

        tokens = rows.tokens.gather(1, query.at)
        self.work.add(tokens)
        return self.model.encode(tokens, query.at, visible(rows.stop, rows.tokens.shape[1]), mix)

    def encode_tree(self, rows: Canvas, window: Span, query: Span) -> Tensor:
        """The same states with the drafts of a sequence side by side in one row.

        A draft sees the store outside the window, and its own copy of the window only.
        """
        head = (rows.branch == 0).nonzero()[:, 0]  # the first row of each sequence
        group = (rows.branch == 0).long().cumsum(0) - 1
        num, depth, width = len(head), int(rows.branch.max()) + 1, query.width
        slot = group * depth + rows.branch  # where each draft stands among num * depth places

        def pack(value: Tensor, empty: int) -> Tensor:
            packed = value.new_full((num * depth, width), empty)
            return packed.index_copy(0, slot, value).view(num, depth * width)

        column = torch.arange(width, device=slot.device)
        own = (column >= self.model.shift) & (column < (query.hi - query.lo)[:, None])
        own = pack(own.long(), 0).bool()
        draft = torch.arange(depth, device=slot.device).repeat_interleave(width)
        beside = own[:, None] & (draft[:, None] == draft)
        position, first = rows.position[head], Span(window.lo[head], window.hi[head])
        kept = (position < rows.stop[head][:, None]) & ~first.contains(position)
        attend = torch.cat([kept[:, None].expand(-1, depth * width, -1), beside], 2)[:, None]

        def extend(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            old = [one[rows.row[head]] for one in self.store[layer]]
            return torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)

        tokens = pack(rows.tokens.gather(1, query.at), rows.eos_ids[0])
        self.work.add(tokens)
        hidden = self.model.encode(tokens, pack(query.at, 0), attend, extend)
        return hidden.view(num * depth, width, -1)[slot]


def join(parts: list[tuple[Tensor, Span]], order: Tensor) -> tuple[Tensor, Span]:
    """Logits and spans of several groups of rows as one, rows in `order`, short ones padded."""
    lo = torch.cat([span.lo for _, span in parts])[order]
    hi = torch.cat([span.hi for _, span in parts])[order]
    width = max(span.width for _, span in parts)
    logits = parts[0][0].new_zeros(len(order), width, parts[0][0].shape[-1])
    first = 0
    for some, span in parts:
        logits[first : first + len(some), : span.width] = some
        first += len(some)
    return logits[order], Span(lo, hi)


CACHES = ("none", "prefix", "dual")


def cache_policy(model: Denoiser, cache: str, tree: bool = False) -> NoCache | BlockCache:
    """The forward of a cache policy by name; `tree` packs drafts, which needs a cache.

    Raises `ValueError` for a model without a key/value hook, and for a tree without a cache.
    """
    if cache == "none":
        require(
            not tree, "draft_mode", "tree", "packed drafts share cached keys and values: set cache"
        )
        return NoCache(model)
    supported = getattr(model, "supports_cache", True)
    require(
        supported, "cache", cache, "a wrapped module (or a compiled one) keeps no keys and values"
    )
    return BlockCache(model, dual=cache == "dual", tree=tree)
