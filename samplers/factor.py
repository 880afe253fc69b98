"""Factor decoding (Fast-dLLM, arXiv 2505.22618): the threshold rises with the number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import NonNegative, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class Factor(Selection):
    """The longest prefix of the most confident positions with (n + 1)(1 − cₙ) < `factor`."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        number("factor", self.factor)

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "factor", factor=self.factor)


@register_sampler("factor", paper="arXiv 2505.22618", recorded=("fastdllm-factor",))
def factor(factor: NonNegative = 1.0) -> Sampler:
    """Commit the n most confident positions while (n + 1)(1 − the last one's) is below `factor`."""
    return Sampler(select=Factor(factor))
