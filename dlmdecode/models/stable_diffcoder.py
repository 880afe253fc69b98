"""Stable-DiffCoder (arXiv 2601.15892): Llama's network, attention causal between blocks.

Configuration and parameter names are those of the published checkpoints, whose `model_type` is
"llama": the architecture class tells them from Llama. Blocks are counted from position 0. The
logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenBlock

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
}


@register_family(
    "StableDiffcoderForCausalLM",
    checkpoints="Stable-DiffCoder-8B",
    recorded=("stable-diffcoder",),
)
class StableDiffCoder(Qwen):
    """`config` is the checkpoint's config.json as a dict.

    `block_length` is 4, as published, unless the configuration has a `block_size`.
    """

    family = "stable_diffcoder"
    block_field, published_block = "block_size", 4  # config.json has no such field
    mask_id = 5  # of the published vocabulary; config.json names none

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        bias = self.config.flag("attention_bias")
        return QwenBlock(index, self.config, bias=bias, out_bias=bias)
