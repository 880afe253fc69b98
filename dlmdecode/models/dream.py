"""Dream 7B (arXiv 2508.15487): grouped-query attention, biased projections, shifted logits.

Configuration and parameter names are those of the published checkpoints (`model_type: "Dream"`).
The logits at position i predict the token at position i + 1; `shift = 1` says so, and the caches
and the loop only ever ask for "the logits of position i".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dlmdecode.models.base import Block, RMSNorm, Transformer, refuse_unsupported

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "rope_scaling": (None,),
}


class DreamAttention(nn.Module):
    """Holder of the four projections under their original names."""

    def __init__(self, width: int, kv_width: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)


class DreamMLP(nn.Module):
    """Gated MLP under its original names."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DreamBlock(Block):
    def __init__(self, layer: int, config: dict[str, Any]):
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        super().__init__(layer, heads, kv_heads)
        width, eps = config["hidden_size"], config.get("rms_norm_eps", 1e-6)
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = DreamAttention(width, width // heads * kv_heads)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = DreamMLP(width, config["intermediate_size"])

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attention = self.input_layernorm(x), self.self_attn
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.self_attn.o_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


class Dream(Transformer):
    """`config` is the checkpoint's config.json as a dict; `mask_id` and `eos_ids` come from it."""

    family = "Dream"
    shift = 1

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        refuse_unsupported(config, SUPPORTED)
        self.config = config
        width, heads = config["hidden_size"], config["num_attention_heads"]
        self.head_dim = width // heads
        self.num_kv_heads = config.get("num_key_value_heads") or heads
        self.rope_theta = config.get("rope_theta", 10000.0)
        self.max_length = config.get("max_position_embeddings")
        layers = [DreamBlock(i, config) for i in range(config["num_hidden_layers"])]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config["vocab_size"], width),
                "layers": nn.ModuleList(layers),
                "norm": RMSNorm(width, config.get("rms_norm_eps", 1e-6)),
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
