"""LLaDA2.0 and 2.1 (arXiv 2512.15745): many small experts, and attention causal between blocks.

Configuration and parameter names are those of the published checkpoints (`model_type:
"llada2_moe"`). Queries, keys and values come from one projection, heads are normed and rotated in
part, and all layers but the first few have experts, one of which is everybody's. Blocks are counted
from position 0. The logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlmdecode.models.config import Config
from dlmdecode.models.experts import GroupedExperts
from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenMLP, head_sizes, norm_eps
from dlmdecode.models.transformer import Block, RMSNorm

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_bias": (False,),
    "use_rmsnorm": (True,),
    "use_sliding_window": (False,),
    "using_split_qkv_in_self_attention": (False,),
    "norm_head": (False,),
    "norm_softmax": (False,),
    "norm_topk_prob": (True,),
    "score_function": ("sigmoid",),
    "moe_router_enable_expert_bias": (True,),
}


class LLaDA2Attention(nn.Module):
    """Holder of the one projection in, its norms, and the projection out."""

    def __init__(self, config: Config):
        super().__init__()
        width, (heads, kv_heads, size) = config.count("hidden_size"), head_sizes(config)
        self.sizes = (heads * size, kv_heads * size, kv_heads * size)
        self.query_key_value = nn.Linear(width, sum(self.sizes), bias=config.flag("use_qkv_bias"))
        self.dense = nn.Linear(heads * size, width, bias=False)
        self.normed = config.flag("use_qk_norm", True)
        if self.normed:
            self.query_layernorm = RMSNorm(size, norm_eps(config))
            self.key_layernorm = RMSNorm(size, norm_eps(config))


class LLaDA2Block(Block):
    def __init__(self, layer: int, config: Config):
        heads, kv_heads, _ = head_sizes(config)
        super().__init__(layer, heads, kv_heads)
        width = config.count("hidden_size")
        self.input_layernorm = RMSNorm(width, norm_eps(config))
        self.attention = LLaDA2Attention(config)
        self.post_attention_layernorm = RMSNorm(width, norm_eps(config))
        is_dense = layer < config.count("first_k_dense_replace", 0, least=0)
        inner = config.count("intermediate_size")
        self.mlp = QwenMLP(width, inner) if is_dense else experts(config)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.attention
        q, k, v = attention.query_key_value(self.input_layernorm(x)).split(attention.sizes, -1)
        return q, k, v

    def before_rotation(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.attention.normed:
            return q, k
        return self.attention.query_layernorm(q), self.attention.key_layernorm(k)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.attention.dense(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


@register_family(
    "llada2_moe", "LLaDA2MoeModelLM", checkpoints="LLaDA2.0, LLaDA2.1", recorded=("llada2-moe",)
)
class LLaDA2(Qwen):
    """`config` is the checkpoint's config.json as a dict.

    `block_length` is 32, as published, unless the configuration has a `block_size`.
    """

    family = "llada2_moe"
    embedding_name = "model.word_embeddings.weight"
    float32_names = ("expert_bias",)
    partial_rotation = True
    block_field, published_block = "block_size", 32  # config.json has no such field
    mask_id = 156895  # of the published vocabulary; config.json names none

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> LLaDA2Block:
        return LLaDA2Block(index, self.config)


def experts(config: Config) -> GroupedExperts:
    num_experts = config.count("num_experts")
    groups = config.count("n_group", most=num_experts)
    config.require(num_experts % groups == 0, "n_group", f"it must divide {num_experts} experts")
    chosen = config.count("topk_group", most=groups)
    return GroupedExperts(
        config.count("hidden_size"),
        config.count("moe_intermediate_size"),
        num_experts,
        config.count("num_experts_per_tok", most=num_experts // groups * chosen),
        groups=groups,
        chosen_groups=chosen,
        scale=config.number("routed_scaling_factor", 1.0),
        shared=config.count("num_shared_experts", 0, least=0),
    )
