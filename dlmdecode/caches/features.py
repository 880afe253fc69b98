"""dLLM-Cache (arXiv 2506.06295): what each layer gives is kept, for prompt and text apart."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.base import gather_states, require_full_attention, require_hook, shifted
from dlmdecode.caches.feature_layer import Layer
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import Store, nothing
from dlmdecode.caches.view import keys, visible
from dlmdecode.checks import Count, Probability, conform, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Headed, Work
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.rotary import rotary
from dlmdecode.models.transformer import Block, Transformer


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
        fix = "its layers have a forward of their own, which this cache does not go through"
        own = any(type(block).forward is not Block.forward for block in model.blocks)
        require(not own, "cache", "dllm", fix)
        fix = "it calls the parts of a layer itself: load the model on one device"
        require(len(set(model.device_map.values())) < 2, "cache", "dllm", fix)
        self.model, self.work = model, Work()
        self.prompt_refresh = conform("prompt_refresh", prompt_refresh, Count)
        self.text_refresh = conform("text_refresh", text_refresh, Count)
        self.ratio = conform("ratio", ratio, Probability)
        self.attended, self.outputs = Store(), Store()  # keys and values; attention's and the MLP's
        self.calls = nothing(1, torch.int64)  # (R,) forwards of each row
        self.held = nothing(2, torch.bool)  # (R, L) what was ever computed

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
        self.held = self.attended.room(self.held, rows)
        self.calls = self.attended.room(self.calls, rows)
        new = rows.row[rows.nfe == 0]
        self.held[new], self.calls[new] = False, 0
