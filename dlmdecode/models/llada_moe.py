"""LLaDA-MoE: LLaDA's full attention, without shift, on the network of OLMoE (arXiv 2409.02060).

Configuration and parameter names are those of the published checkpoints. Copies of these differ in
`model_type`, of which one is LLaDA's, so that the architecture class counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dlmdecode.models.config import Config
from dlmdecode.models.experts import Experts
from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenBlock, QwenMLP

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "clip_qkv": (),
    "qk_layernorm": (True,),
    "moe_router_enable_expert_bias": (False,),
    "moe_router_score_function": ("softmax",),
    "router_num_group": (),
    "router_topk_group": (),
    "shared_expert_intermediate_size": (),
}


@register_family(
    "llada_moe",
    "lladamoe",
    "LLaDAMoEModelLM",
    checkpoints="LLaDA-MoE-7B-A1B",
    recorded=("llada-moe",),
)
class LLaDAMoE(Qwen):
    """`config` is the checkpoint's config.json as a dict; `mask_id` and `eos_ids` come from it."""

    family = "llada_moe"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        config = self.config
        bias = config.flag("attention_bias")
        mlp = experts(config) if has_experts(config)[index] else dense(config)
        return QwenBlock(index, config, bias=bias, out_bias=bias, head_norms=True, mlp=mlp)


def has_experts(config: Config) -> list[int]:
    """For each layer 1 if it has experts, as all have by default, or 0."""
    layers = config.count("num_hidden_layers")
    value = config.known("moe_layer_freq", [1] * layers)
    fits = isinstance(value, list) and len(value) == layers and all(one in (0, 1) for one in value)
    config.require(fits, "moe_layer_freq", f"it must list 0 or 1 for each of {layers} layers")
    return value


def experts(config: Config) -> nn.Module:
    num_experts = config.count("num_experts")
    return Experts(
        config.count("hidden_size"),
        config.count("expert_intermediate_size"),
        num_experts,
        config.count("num_experts_per_tok", most=num_experts),
        config.flag("norm_topk_prob"),
    )


def dense(config: Config) -> nn.Module:
    return QwenMLP(config.count("hidden_size"), config.count("dense_intermediate_size"))
