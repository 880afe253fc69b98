"""How much is written around a position: certainty density (d²Cache, arXiv 2509.23094)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas


def certainty_density(canvas: Canvas, sigma: float) -> Tensor:
    """The share of known positions around each, by a Gaussian of width `sigma`: (B, L) float64.

    From 0 to 1. It is taken over as many positions as the text has, and as many more on either
    side: those before the text are known, those behind it once its last position is.
    """
    length = (canvas.stop - canvas.start)[:, None]
    most = int(length.max())
    place = torch.arange(-most, canvas.tokens.shape[1] + most, device=length.device)
    start, stop = canvas.start[:, None], canvas.stop[:, None]
    inside = (place >= start - length) & (place < stop + length)  # (B, L + 2 most)
    at = place.clamp(0, canvas.tokens.shape[1] - 1).expand_as(inside)
    last = (stop - 1).expand_as(inside)
    open = canvas.masked.gather(1, torch.minimum(at, last)) & (place >= start)
    distance = (canvas.position[0, :, None] - place).double()
    weight = torch.exp(-(distance**2) / (2 * sigma**2))  # (L, L + 2 most)
    return ((inside & ~open).double() @ weight.T) / (inside.double() @ weight.T)
