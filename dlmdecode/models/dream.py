"""Dream 7B (arXiv 2508.15487): grouped-query attention, biased projections, shifted logits.

Configuration and parameter names are those of the published checkpoints (`model_type: "Dream"`).
The logits at position i predict the token at position i + 1; `shift = 1` says so, and the caches
and the loop only ever ask for "the logits of position i".
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
    "use_mrope": (False,),
}


@register_family(
    "Dream",
    embedded={"tiny-dream": Path(__file__).parent / "tiny-dream"},
    checkpoints="Dream-7B, Dream-Coder, DiffuCoder, dParallel, d3LLM",
    recorded=("dream-vanilla",),
)
class Dream(Qwen):
    """`config` is the checkpoint's config.json as a dict; `mask_id` and `eos_ids` come from it."""

    family = "Dream"
    shift = 1

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        config = self.config
        config.refuse_unsupported(SUPPORTED)
        *_, size = config.heads("hidden_size", "num_attention_heads", "num_key_value_heads")
        config.refuse_unsupported({"head_dim": (size,)})
        self.assemble()

    def layer(self, index: int) -> QwenBlock:
        return QwenBlock(index, self.config)
