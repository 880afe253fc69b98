"""Sparse-dLLM (arXiv 2508.02558): of what stands outside the block, each layer keeps a part."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches.base import gather_states, shifted
from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import nothing
from dlmdecode.caches.view import view
from dlmdecode.checks import Count, PositiveProbability, conform, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook, Watch


@register_cache("sparse", paper="Sparse-dLLM (arXiv 2508.02558)", recorded=("sparse-dllm",))
class SparseCache(BlockCache):
    """Compute the block against the `ratio` of the other positions that it looks at. Approximate.

    A block's first two forwards compute all. In each layer the positions are kept whose keys agree
    best with the block's mean query, or that stand within `kernel` // 2 of one that does; of equals
    the first. Raises `ValueError` as `BlockCache` does.
    """

    def __init__(self, model: Denoiser, ratio: PositiveProbability = 0.5, kernel: Count = 3):
        super().__init__(model, dual=True, name="sparse")
        self.ratio = conform("ratio", ratio, PositiveProbability)
        self.kernel = conform("kernel", kernel, Count)
        require(self.kernel % 2 == 1, "kernel", kernel, "give an odd number")
        self.calls = nothing(1, torch.int64)  # (R,) forwards since the block was opened
        self.num_kept = self.calls  # (R,) positions that the store holds

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.store.fit(rows)
        self.calls = self.store.room(self.calls, rows)
        self.num_kept = self.store.room(self.num_kept, rows)
        own = rows.branch == 0
        self.calls[rows.row[rows.block_full & own]] = 0
        out = super().states(rows, wanted)
        self.calls[rows.row[own]] = self.calls[rows.row[own]] + 1
        return out

    def due(self, rows: Canvas) -> list[bool]:
        return (self.calls[rows.row] < 2).tolist()

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        tokens, at, shown = view(rows, wanted)
        self.work.add(tokens)
        there = at < rows.stop[:, None] if shown is None else shown[:, 0, 0]
        keep = KeepBest(self, rows, rows.block.gather(1, at), there)
        self.num_kept[rows.row[keep.own]] = keep.count[keep.own]
        hidden = self.model.encode(tokens, at, self.model.attention(at, at, shown), keep)
        return gather_states(hidden, shifted(wanted, self.model)), wanted

    def encode(self, rows: Canvas, window: Positions, query: Tensor) -> Tensor:
        tokens = rows.tokens.gather(1, query)
        self.work.add(tokens)
        count = self.num_kept[rows.row]
        most = int(count.max())
        kept = torch.arange(most, device=count.device) < count[:, None]
        shown = torch.cat([kept, window.real], 1)[:, None, None]
        return self.model.encode(tokens, query, shown, self.beside(rows, most))

    def beside(self, rows: Canvas, most: int) -> KeyValueHook:
        """Puts the fresh keys and values of the window behind the first `most` that are kept."""

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            kept = self.store.read(layer, rows.row, most)
            new = (k[:, :, self.model.shift :], v[:, :, self.model.shift :])
            k, v = (torch.cat(pair, 2) for pair in zip(kept, new, strict=True))
            return k, v

        return hook


class KeepBest(Watch):
    """Keeps of each layer the keys and values outside the block that its queries look for.

    Args:
        block, there: (N, W) bool, the tokens of the block, and those that are seen.
    """

    def __init__(self, cache: SparseCache, rows: Canvas, block: Tensor, there: Tensor):
        self.cache, self.block = cache, block
        self.values = block  # of the layer that is being computed
        self.row, self.own = rows.row, rows.branch == 0
        self.outside = Scattered(there & ~block)
        self.count = (self.outside.count * cache.ratio).long()  # (N,)

    def __call__(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.values = values.to(keys.dtype)
        return keys, values

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        device, most = keys.device, int(self.count.max())
        score = self.score(queries, keys).argsort(dim=1, descending=True, stable=True)
        best = self.outside.at.to(device).gather(1, score[:, :most])[:, None, :, None]
        own, row = self.own.to(device), self.row.to(device)
        for kept, new in zip(self.cache.store.of(layer, keys), (keys, self.values), strict=True):
            chosen = new.gather(2, best.expand(-1, new.shape[1], -1, new.shape[3]))
            kept[row[own], :, :most] = chosen[own]

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How well the keys outside the block agree with it, the best of their neighbours', (N, O).

        −inf behind those of a short row.
        """
        block, outside = self.block.to(keys.device), self.outside
        mean = (queries * block[:, None, :, None]).sum(2) / block.sum(1).clamp(min=1)[:, None, None]
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
        score = torch.einsum("nhd,nhwd->nw", mean, keys).float() / queries.shape[1]
        score = score.gather(1, outside.at.to(keys.device))
        score = score.masked_fill(~outside.real.to(keys.device), -torch.inf)
        kernel = min(self.cache.kernel, 2 * score.shape[1] - 1)  # which reaches everything
        pooled = F.max_pool1d(score[:, None], kernel, stride=1, padding=kernel // 2)[:, 0]
        return pooled.masked_fill(~outside.real.to(keys.device), -torch.inf)
