"""The certainty prior of d²Cache (arXiv 2509.23094): positions near written text come first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Between, Count, Positive, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Score
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class CertaintyDensity(Score):
    """The confidence times the share of known positions around, by a Gaussian of width `sigma`.

    It is taken over as many positions as the text has, and as many more on either side: those
    before the text are known, those behind it once its last position is.
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        number("sigma", self.sigma, Between(0, above=True))

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return confidence * self.density(canvas)

    def density(self, canvas: Canvas) -> Tensor:
        """(B, L) float64, from 0 to 1."""
        length = (canvas.stop - canvas.start)[:, None]
        most = int(length.max())
        place = torch.arange(-most, canvas.tokens.shape[1] + most, device=length.device)
        start, stop = canvas.start[:, None], canvas.stop[:, None]
        inside = (place >= start - length) & (place < stop + length)  # (B, L + 2 most)
        at = place.clamp(0, canvas.tokens.shape[1] - 1).expand_as(inside)
        last = (stop - 1).expand_as(inside)
        open = canvas.masked.gather(1, torch.minimum(at, last)) & (place >= start)
        distance = (canvas.position[0, :, None] - place).double()
        weight = torch.exp(-(distance**2) / (2 * self.sigma**2))  # (L, L + 2 most)
        return ((inside & ~open).double() @ weight.T) / (inside.double() @ weight.T)


@register_sampler(
    "certainty", over="vanilla", paper="d²Cache (arXiv 2509.23094)", recorded=("d2-parallel",)
)
def certainty(sigma: Positive = 10.0, block_length: Count | None = None) -> Sampler:
    """Weigh confidence by how much of the text around is written: left to right without blocks."""
    return Sampler(scores=(CertaintyDensity(sigma),), blocks=blocks_of(block_length))
