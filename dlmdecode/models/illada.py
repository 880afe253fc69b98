"""iLLaDA: LLaDA's way of writing, full attention and no shift, on a network of Qwen2's layout.

Configuration and parameter names are those of the published checkpoints (`model_type: "illada"`).
The head is tied, and there are no biases unless `attention_bias` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenBlock

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "layer_norm_eps": (),  # a LayerNorm with bias in the place of RMSNorm
    "mlp_bias": (False,),
}


@register_family("illada", checkpoints="iLLaDA-8B", recorded=("illada",))
class ILLaDA(Qwen):
    """`config` is the checkpoint's config.json as a dict."""

    family = "illada"
    mask_id = 5  # of the published vocabulary; its config.json names none

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        bias = self.config.flag("attention_bias")
        return QwenBlock(index, self.config, bias=bias, out_bias=bias)
