"""EOSER (EOS early rejection; EOSER-ASS-RL's code): distrust an early end of the text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Count, NonNegative
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.scores import EosFactor
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class EosRejection(EosFactor):
    """The factor grows with the steps taken, reaching `high` at the last of `steps`.

    Where no steps are given, it grows with the share of the text that is written.
    """

    low: float = 0.4
    high: float = 1.0
    steps: int | None = None

    def progress(self, canvas: Canvas) -> Tensor:
        if self.steps is None:
            length = canvas.length.double()
            return (length - canvas.masked.sum(1)) / length
        return (canvas.step.double() / max(self.steps - 1, 1)).clamp(max=1)


@register_sampler(
    "eoser", over="vanilla", paper="EOSER-ASS-RL (ICLR 2026 submission)", recorded=("eoser-ass",)
)
def eoser(
    gamma_min: NonNegative = 0.4, gamma_max: NonNegative = 1.0, steps: Count | None = None
) -> Sampler:
    """Multiply the confidence of EOS proposals by a factor rising from gamma_min to gamma_max."""
    return Sampler(scores=(EosRejection(gamma_min, gamma_max, steps),))
