"""DreamReasoner: SDAR's network and blocks under Dream's model type.

A configuration with a `block_size` tells it from Dream: Qwen3's norms of queries and keys, no
biases, attention that is causal between blocks. The logits at i predict the token at i.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlmdecode.models.config import Config
from dlmdecode.models.families import register_family
from dlmdecode.models.sdar import SDAR


def has_blocks(config: Config) -> bool:
    return config.get("block_size") is not None


@register_family(
    "Dream", when=has_blocks, checkpoints="DreamReasoner-8B", second=("dream-reasoner",)
)
class DreamReasoner(SDAR):
    """`config` is the checkpoint's config.json as a dict; `block_length` is its `block_size`."""

    family = "DreamReasoner"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.config.refuse_unsupported({"use_mrope": (False,)})
