"""SDAR (arXiv 2510.06303): a Qwen3 network whose attention is causal between blocks.

Configuration and parameter names are those of the published checkpoints (`model_type: "sdar"`).
TraDo's checkpoints are of the same type. Blocks are counted from position 0. A position sees its
own block in both directions and all blocks before it. The logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenBlock

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
}


@register_family(
    "sdar",
    checkpoints="SDAR, TraDo",
    recorded=("sdar",),
    embedded={"tiny-block": Path(__file__).parent / "tiny-block"},
)
class SDAR(Qwen):
    """`config` is the checkpoint's config.json as a dict; `block_length` is its `block_size`."""

    family = "sdar"
    block_field = "block_size"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        bias = self.config.flag("attention_bias")
        return QwenBlock(index, self.config, bias=bias, out_bias=bias, head_norms=True)
