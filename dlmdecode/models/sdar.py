"""SDAR (arXiv 2510.06303): a Qwen3 network whose attention is causal between blocks.

Configuration and parameter names are those of the published checkpoints (`model_type: "sdar"`).
TraDo's checkpoints are of the same type. Blocks are counted from position 0. A position sees its
own block in both directions and all blocks before it. The logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dlmdecode.models.config import LARGEST_VOCABULARY, Config
from dlmdecode.models.dream import DreamMLP
from dlmdecode.models.families import register_family
from dlmdecode.models.rotary import rope_theta
from dlmdecode.models.transformer import Block, RMSNorm, Transformer

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "quantization_config": (),
}


class SDARAttention(nn.Module):
    """Holder of the projections and of the norms of each head's queries and keys."""

    def __init__(self, config: Config):
        super().__init__()
        width, eps = config.count("hidden_size"), config.number("rms_norm_eps", 1e-6)
        heads, kv_heads, size = head_sizes(config)
        bias = config.flag("attention_bias")
        self.q_proj = nn.Linear(width, heads * size, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * size, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * size, bias=bias)
        self.o_proj = nn.Linear(heads * size, width, bias=bias)
        self.q_norm = RMSNorm(size, eps)
        self.k_norm = RMSNorm(size, eps)


class SDARBlock(Block):
    def __init__(self, layer: int, config: Config):
        heads, kv_heads, _ = head_sizes(config)
        super().__init__(layer, heads, kv_heads)
        width, eps = config.count("hidden_size"), config.number("rms_norm_eps", 1e-6)
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = SDARAttention(config)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = DreamMLP(width, config.count("intermediate_size"))

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attention = self.input_layernorm(x), self.self_attn
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def before_rotation(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.self_attn.q_norm(q), self.self_attn.k_norm(k)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.self_attn.o_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


def head_sizes(config: Config) -> tuple[int, int, int]:
    """Query heads, key/value heads and a head's size, which need not make up the width."""
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads)
    config.require(heads % kv_heads == 0, "num_key_value_heads", f"it must divide {heads} heads")
    size = config.count("head_dim", config.count("hidden_size") // heads)
    config.require(size % 2 == 0, "head_dim", "it must be even for rotation")
    return heads, kv_heads, size


@register_family("sdar")
class SDAR(Transformer):
    """`config` is the checkpoint's config.json as a dict; `block_length` is its `block_size`."""

    family = "sdar"
    layers_field, tied_field = "num_hidden_layers", "tie_word_embeddings"
    layer_names = "model.layers."
    embedding_name = "model.embed_tokens.weight"
    head_name = "lm_head.weight"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        config = self.config
        config.refuse_unsupported(SUPPORTED)
        self.block_length, width = config.count("block_size"), config.count("hidden_size")
        _, self.num_kv_heads, self.head_dim = head_sizes(config)
        self.rope_theta = rope_theta(config)
        self.max_length = config.count_or_none("max_position_embeddings")
        vocab = config.count("vocab_size", most=LARGEST_VOCABULARY)
        layers = [SDARBlock(i, config) for i in range(config.count("num_hidden_layers"))]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(vocab, width),
                "layers": nn.ModuleList(layers),
                "norm": RMSNorm(width, config.number("rms_norm_eps", 1e-6)),
            }
        )
        self.tied = config.flag("tie_word_embeddings")
        if not self.tied:
            self.lm_head = nn.Linear(width, vocab, bias=False)

    @property
    def embedding(self) -> nn.Embedding:
        return self.model["embed_tokens"]  # type: ignore[return-value]

    @property
    def blocks(self) -> Iterable[Block]:
        return self.model["layers"]  # type: ignore[return-value]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.model["norm"](x)

    def head(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight) if self.tied else self.lm_head(hidden)
