"""One layer of dLLM-Cache (arXiv 2506.06295): what is kept of it, and what is computed anew."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dlmdecode.caches.base import gather_states
from dlmdecode.caches.store import Store
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Scattered
from dlmdecode.models.rotary import rotate
from dlmdecode.models.transformer import Block

Code = tuple[Tensor, Tensor]


class Kept(Protocol):
    """What the layers of a cache share: keys and values, and what attention and MLP gave."""

    attended: Store
    outputs: Store
    ratio: float


class Layer:
    """One layer of a forward, with what the cache keeps of it."""

    def __init__(self, cache: Kept, block: Block, rows: Canvas, shown: Tensor | None):
        self.cache, self.block, self.shown = cache, block, shown
        self.row, self.own = rows.row, rows.branch == 0
        self.length = rows.tokens.shape[1]

    def __call__(self, x: Tensor, code: Code, anew: Tensor, moving: Tensor) -> tuple[Tensor, int]:
        """The layer's output (N, L, D), and at how many positions it was computed.

        Args:
            anew: (N, L) bool, positions that are computed.
            moving: (N, L) bool, those of which the cache chooses.
        """
        query = Scattered(anew | moving if self.cache.ratio else anew)
        q, k, v = self.qkv(gather_states(x, query.at), query, code)
        keys, values = self.cache.attended.of(self.block.layer, k)
        if self.cache.ratio and moving.any():
            old = values[self.row, :, : self.length]
            anew = anew | most_moved(v, query, moving, old, self.cache.ratio)
        chosen = Scattered(anew)
        column = query.column(chosen.at)[:, None, :, None].expand(-1, -1, -1, q.shape[3])
        q, k = (part.gather(2, column.expand(-1, part.shape[1], -1, -1)) for part in (q, k))
        k, v = self.put(keys, chosen, k), self.put(values, query, v)
        grouped = q.shape[1] != k.shape[1]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.shown, enable_gqa=grouped)
        mixed = self.block.attention_out(rearrange(mixed, "n h w d -> n w (h d)"))
        attention, second = self.cache.outputs.of(self.block.layer, mixed[:, None])
        x = x + self.put(attention, chosen, mixed[:, None])[:, 0]
        fed = self.block.feed_forward(gather_states(x, chosen.at))
        return x + self.put(second, chosen, fed[:, None])[:, 0], chosen.at.numel()

    def qkv(self, x: Tensor, query: Scattered, code: Code) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, H, W, D/H) of states (N, W, D) at `query`, rotated."""
        block = self.block
        heads = (block.num_heads, block.num_kv_heads, block.num_kv_heads)
        q, k, v = (
            rearrange(part, "n w (h d) -> n h w d", h=num)
            for part, num in zip(block.qkv(x), heads, strict=True)
        )
        q, k = block.before_rotation(q, k)
        index = query.at[:, None, :, None].expand(-1, -1, -1, code[0].shape[-1])
        cos, sin = (part.expand(len(x), -1, -1, -1).gather(2, index) for part in code)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def put(self, kept: Tensor, query: Scattered, new: Tensor) -> Tensor:
        """What is kept of these rows, (N, H, L, ·), with what is `new` (N, H, W, ·) at `query`."""
        every = kept[self.row, :, : self.length]
        index = query.at[:, None, :, None].expand_as(new)
        some = (query.count > 0)[:, None, None, None]  # a row of none repeats a position
        every = every.scatter(2, index, torch.where(some, new, every.gather(2, index)))
        kept[self.row[self.own], :, : self.length] = every[self.own]
        return every


def most_moved(
    values: Tensor, query: Scattered, moving: Tensor, kept: Tensor, ratio: float
) -> Tensor:
    """The `ratio` of the positions `moving` (N, L) whose values differ most, (N, L) bool.

    Args:
        values: (N, H, W, D/H), at `query`.
        kept: (N, H, L, D/H), those of the forward before.
    """
    index = query.at[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
    new, old = (rearrange(v, "n h w d -> n w (h d)") for v in (values, kept.gather(2, index)))
    like = F.cosine_similarity(new, old, dim=-1)
    every = torch.arange(moving.shape[1], device=moving.device).expand_as(moving)
    rank = like.gather(1, query.column(every))
    rank = rank.masked_fill(~moving, torch.inf).argsort(dim=1, stable=True)
    count = (moving.sum(1) * ratio).long()[:, None]
    first = every < count
    return torch.zeros_like(moving).scatter(1, rank, first) & moving
