"""dLLM-Cache (arXiv 2506.06295): what each layer gives is kept, for prompt and text apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dlmdecode.caches.base import (
    gather_states,
    keys,
    require_full_attention,
    require_hook,
    shifted,
    visible,
)
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import Store
from dlmdecode.checks import Count, Probability, conform, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Headed, Work
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.rotary import rotary, rotate
from dlmdecode.models.transformer import Block, Transformer

Code = tuple[Tensor, Tensor]


@register_cache("dllm", paper="dLLM-Cache (arXiv 2506.06295)", recorded=("dllm-cache",))
class FeatureCache(Headed):
    """Keep what each layer gives; recompute what moved most. Approximate.

    The prompt is computed every `prompt_refresh` forwards of a row, its text every `text_refresh`.
    In between, the `ratio` of the text whose values changed most is computed in each layer but the
    first, which is always computed as a whole. Queries and keys of the rest are computed, too, and
    not used.

    Raises `ValueError` as other caches do, and for a model whose layers stand on several devices.
    """

    slides = None
    model: Transformer

    def __init__(
        self,
        model: Denoiser,
        prompt_refresh: Count = 50,
        text_refresh: Count = 7,
        ratio: Probability = 0.25,
    ):
        require_hook(model, "dllm")
        require_full_attention(model, "dllm")
        native = isinstance(model, Transformer)
        require(native, "cache", "dllm", "it goes through a native model's layers: use 'none'")
        assert isinstance(model, Transformer)
        fix = "it calls the parts of a layer itself: load the model on one device"
        require(len(set(model.device_map.values())) < 2, "cache", "dllm", fix)
        self.model, self.work = model, Work()
        self.prompt_refresh = conform("prompt_refresh", prompt_refresh, Count)
        self.text_refresh = conform("text_refresh", text_refresh, Count)
        self.ratio = conform("ratio", ratio, Probability)
        self.attended, self.outputs = Store(), Store()  # keys and values; attention's and the MLP's
        self.calls = torch.empty(0, dtype=torch.int64)  # (R,) forwards of each row
        self.held = torch.empty(0, 0, dtype=torch.bool)  # (R, L) what was ever computed

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.begin(rows)
        seen, calls = visible(rows, wanted), self.calls[rows.row]
        own = rows.row[rows.branch == 0]
        due = (calls % self.text_refresh == 0)[:, None] & rows.text
        due = due | ((calls % self.prompt_refresh == 0)[:, None] & ~rows.text)
        anew = seen & (due | ~self.held[rows.row, : seen.shape[1]])
        moving = seen & rows.text & ~anew
        x, shown = self.model.embedding(rows.tokens), keys(seen)
        dim = self.model.rotary_dim or self.model.head_dim
        code = rotary(rows.position, dim, self.model.rope_theta)
        positions = 0
        for i, block in enumerate(self.model.blocks):
            layer = Layer(self, block, rows, shown)
            where = (anew, moving) if i else (seen, torch.zeros_like(seen))
            x, count = layer(x, code, *where)
            positions += count
        self.work.add(rows.tokens, positions // (i + 1))
        self.held[own, : seen.shape[1]] |= seen[rows.branch == 0]
        self.calls[own] = self.calls[own] + 1
        return gather_states(self.model.final_norm(x), shifted(wanted, self.model)), wanted

    def begin(self, rows: Canvas) -> None:
        """Room for these rows; of new ones nothing was computed yet."""
        for store in (self.attended, self.outputs):
            store.fit(rows)
        num_rows, length = self.held.shape
        more = (0, self.attended.length - length, 0, self.attended.num_rows - num_rows)
        if any(more):
            device = rows.tokens.device
            self.held = F.pad(self.held.to(device), more)
            self.calls = F.pad(self.calls.to(device), more[2:])
        new = rows.row[rows.nfe == 0]
        self.held[new], self.calls[new] = False, 0

    def most_moved(self, values: Tensor, query: Scattered, moving: Tensor, kept: Tensor) -> Tensor:
        """Of the positions `moving` (N, L) those whose values differ most, (N, L) bool.

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
        count = (moving.sum(1) * self.ratio).long()[:, None]
        first = every < count
        return torch.zeros_like(moving).scatter(1, rank, first) & moving


class Layer:
    """One layer of a forward, with what the cache keeps of it."""

    def __init__(self, cache: FeatureCache, block: Block, rows: Canvas, shown: Tensor | None):
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
            anew = anew | self.cache.most_moved(v, query, moving, old)
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
