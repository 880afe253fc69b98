"""Fast-dLLM v2 (arXiv 2509.26328): Qwen2.5's network with attention that is causal between blocks.

Configuration and parameter names are those of the published checkpoints (`model_type:
"Fast_dLLM_Qwen"`). Blocks are counted from position 0. The logits at i predict the token at i + 1:
a block's first token comes from the last position of the block before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlmdecode.models.families import register_family
from dlmdecode.models.qwen import Qwen, QwenBlock

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
}


@register_family("Fast_dLLM_Qwen", checkpoints="Fast-dLLM v2", recorded=("fast-dllm-v2",))
class FastDLLM(Qwen):
    """`config` is the checkpoint's config.json as a dict; `block_length` is its `bd_size`."""

    family = "Fast_dLLM_Qwen"
    shift = 1
    block_field = "bd_size"
    mask_tokens = ("|<MASK>|",)
    mask_id = 151665  # of the published vocabulary; config.json names none

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported(SUPPORTED)
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        return QwenBlock(index, self.config)
