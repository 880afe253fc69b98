"""EB-Sampler (arXiv 2505.24857): commit as many tokens as an entropy budget allows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Between, Count, NonNegative, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import WholeCanvas, blocks_of
from dlmdecode.parts.scores import NegativeEntropy
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class EntropyBound(Selection):
    """The longest prefix, most confident first, with Σ H − max H at most `gamma` nats.

    That difference bounds how far the product of the marginals can be from the joint distribution.
    """

    ranks = True
    gamma: float = 0.1

    def __post_init__(self) -> None:
        number("gamma", self.gamma, Between(0))

    def __call__(self, canvas: Canvas) -> Tensor:
        entropy = canvas.proposal.entropy
        return by_rule(canvas, "entropy_bound", gamma=self.gamma, entropy=entropy)


@register_sampler("entropy_bound", paper="arXiv 2505.24857", second=("eb-sampler", "d2-eb"))
def entropy_bound(gamma: NonNegative = 0.1, block_length: Count | None = None) -> Sampler:
    """Commit the lowest-entropy positions of the canvas within a budget of `gamma` nats."""
    blocks = WholeCanvas() if block_length is None else blocks_of(block_length)
    return Sampler(select=EntropyBound(gamma), scores=(NegativeEntropy(),), blocks=blocks)
