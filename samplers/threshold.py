"""Confidence-threshold parallel decoding (Fast-dLLM, arXiv 2505.22618)."""

from typing import Annotated

from dlmdecode.checks import Between
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import Threshold
from dlmdecode.registry import register_sampler

UP_TO_NEVER = Between(0, 2)  # what is far above 1 is a slip, such as 90 for 0.9


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
