"""The certainty prior of d²Cache (arXiv 2509.23094): positions near written text come first."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Between, Count, Positive, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Score
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.parts.density import certainty_density
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class CertaintyDensity(Score):
    """The confidence times the share of known positions around, by a Gaussian of width `sigma`."""

    sigma: float = 10.0

    def __post_init__(self) -> None:
        number("sigma", self.sigma, Between(0, above=True))

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return confidence * certainty_density(canvas, self.sigma)


@register_sampler(
    "certainty", over="vanilla", paper="d²Cache (arXiv 2509.23094)", recorded=("d2-parallel",)
)
def certainty(sigma: Positive = 10.0, block_length: Count | None = None) -> Sampler:
    """Weigh confidence by how much of the text around is written: left to right without blocks."""
    return Sampler(scores=(CertaintyDensity(sigma),), blocks=blocks_of(block_length))
