"""Confidence-threshold parallel decoding (Fast-dLLM, arXiv 2505.22618)."""

from typing import Annotated

from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import UP_TO_NEVER, Threshold
from dlmdecode.registry import register_sampler


@register_sampler(
    "threshold",
    paper="arXiv 2505.22618",
    recorded=("fastdllm", "dream-fastdllm"),
    presets={"llada2_moe": {"threshold": 0.95}},
)
def threshold(threshold: Annotated[float, UP_TO_NEVER] = 0.9) -> Sampler:
    """Commit every position of the block from `threshold` up, and always the most confident one.

    A threshold above 1 leaves that one alone: a token a step.
    """
    return Sampler(select=Threshold(threshold))
