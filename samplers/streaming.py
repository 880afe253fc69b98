"""Streaming-dLLM (arXiv 2601.17917): the threshold falls as the block fills; see `suffix`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches import visible
from dlmdecode.checks import OneOf, Probability, conform, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule, Part, Selection
from dlmdecode.decoding.positions import Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler

Ratio = Annotated[str, OneOf(("block", "visible"))]


@dataclass(frozen=True)
class FallingThreshold(Selection):
    """Every position at least `threshold` · (1 − `alpha` · (1 − r)) sure.

    r is the share of the block's masks that is left. In the authors' code it is the share of masks
    among all that is visible from the block on (`ratio="visible"`): masks of the suffix count, so
    that it hardly falls where a suffix is seen; a block's first step has the whole threshold.
    """

    threshold: float = 0.9
    alpha: float = 0.3
    ratio: str = "block"

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        number("alpha", self.alpha)
        conform("ratio", self.ratio, Ratio)

    def refuses(self, other: Part) -> str | None:
        slides = isinstance(other, BlockSchedule) and other.slides
        return "a window that slides does not fill, so that no threshold falls" if slides else None

    def left(self, canvas: Canvas) -> Tensor:
        """r, (B,) float64."""
        if self.ratio == "block":
            return canvas.open.sum(1).double() / canvas.block_masks
        seen = visible(canvas, Span(canvas.lo, canvas.hi))
        seen = seen & (canvas.position >= canvas.lo[:, None])
        share = (seen & canvas.masked).sum(1).double() / seen.sum(1)
        return torch.where(canvas.block_step == 0, 1, share)

    def __call__(self, canvas: Canvas) -> Tensor:
        level = self.threshold * (1 - self.alpha * (1 - self.left(canvas)))
        return canvas.confidence >= level[:, None]


@register_sampler(
    "streaming",
    paper="arXiv 2601.17917",
    recorded=("suffix-window", "dream-suffix-window"),
)
def streaming(
    threshold: Probability = 0.9, alpha: Probability = 0.3, ratio: Ratio = "block"
) -> Sampler:
    """Commit what passes a threshold that falls by `alpha` as the block fills up.

    Published with cache="prefix" and suffix_tail=1; for texts of 256 positions suffix=96 and alpha
    0.3 to 0.4 (LLaDA-1.5), suffix 32 and alpha 0.6 (Dream, GSM8K).
    """
    return Sampler(select=FallingThreshold(threshold, alpha, ratio))
