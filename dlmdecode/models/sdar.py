"""SDAR (arXiv 2510.06303): a Qwen3 network whose attention is causal between blocks.

Configuration and parameter names are those of the published checkpoints (`model_type: "sdar"`).
Blocks are counted from position 0. A position sees its own block in both directions and all blocks
before it: `encode` wants `block_causal` as `attend`. The logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dlmdecode.models.base import Block, RMSNorm, Transformer, refuse_unsupported
from dlmdecode.models.dream import DreamMLP

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False, None),
    "rope_scaling": (None,),
}


def block_causal(query: Tensor, key: Tensor, block: int) -> Tensor:
    """Whether positions `query` (…, W) see positions `key` (…, T): bool (…, W, T)."""
    return key[..., None, :] // block <= query[..., None] // block


class SDARAttention(nn.Module):
    """Holder of the projections and of the norms of each head's queries and keys."""

    def __init__(self, config: dict[str, Any], head_dim: int, kv_heads: int):
        super().__init__()
        width, heads, eps = config["hidden_size"], config["num_attention_heads"], eps_of(config)
        bias = bool(config.get("attention_bias"))
        self.q_proj = nn.Linear(width, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=bias)
        self.q_norm = RMSNorm(head_dim, eps)
        self.k_norm = RMSNorm(head_dim, eps)


class SDARBlock(Block):
    def __init__(self, layer: int, config: dict[str, Any], head_dim: int, kv_heads: int):
        super().__init__(layer, config["num_attention_heads"], kv_heads)
        width, eps = config["hidden_size"], eps_of(config)
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = SDARAttention(config, head_dim, kv_heads)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = DreamMLP(width, config["intermediate_size"])

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attention = self.input_layernorm(x), self.self_attn
        q, k = attention.q_proj(x), attention.k_proj(x)
        q = attention.q_norm(rearrange(q, "n w (h d) -> n w h d", h=self.num_heads))
        k = attention.k_norm(rearrange(k, "n w (h d) -> n w h d", h=self.num_kv_heads))
        return q.flatten(2), k.flatten(2), attention.v_proj(x)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.self_attn.o_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


class SDAR(Transformer):
    """`config` is the checkpoint's config.json as a dict; `block_length` is its `block_size`."""

    family = "sdar"

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        refuse_unsupported(config, SUPPORTED)
        self.config, self.block_length = config, config["block_size"]
        width, heads = config["hidden_size"], config["num_attention_heads"]
        self.head_dim = config.get("head_dim") or width // heads
        self.num_kv_heads = config.get("num_key_value_heads") or heads
        self.rope_theta = config.get("rope_theta", 10000.0)
        self.max_length = config.get("max_position_embeddings")
        layers = (
            SDARBlock(i, config, self.head_dim, self.num_kv_heads)
            for i in range(config["num_hidden_layers"])
        )
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config["vocab_size"], width),
                "layers": nn.ModuleList(layers),
                "norm": RMSNorm(width, eps_of(config)),
            }
        )
        if not config.get("tie_word_embeddings"):
            self.lm_head = nn.Linear(width, config["vocab_size"], bias=False)

    @property
    def embedding(self) -> nn.Embedding:
        return self.model["embed_tokens"]  # type: ignore[return-value]

    @property
    def blocks(self) -> Iterable[Block]:
        return self.model["layers"]  # type: ignore[return-value]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.model["norm"](x)

    def head(self, hidden: Tensor) -> Tensor:
        tied = self.config.get("tie_word_embeddings")
        return F.linear(hidden, self.embedding.weight) if tied else self.lm_head(hidden)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `Transformer.forward`; attention is causal between blocks."""
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        attend = block_causal(place, place, self.block_length)[None, None]
        if attention_mask is not None:
            attend = attend & attention_mask.bool()[:, None, None]
        return self.head(self.encode(input_ids, place.expand_as(input_ids), attend))


def eps_of(config: dict[str, Any]) -> float:
    return config.get("rms_norm_eps", 1e-6)
