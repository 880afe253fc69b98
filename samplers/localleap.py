"""LocalLeap (arXiv 2510.07081): near a very sure position, be easier to please."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.checks import Natural, Probability, number, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class NearAnchor(Selection):
    """Positions at least `threshold` sure are anchors; within `radius` of one, `relaxed` does."""

    threshold: float = 0.9
    relaxed: float = 0.75
    radius: int = 4

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        number("relaxed", self.relaxed)
        whole("radius", self.radius, 0)
        least = self.relaxed <= self.threshold
        require(least, "relaxed", self.relaxed, f"give at most threshold={self.threshold}")

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(
            canvas,
            "relaxed",
            threshold=self.threshold,
            relaxed=self.relaxed,
            radius=self.radius,
        )

    def label(self, confidence: float) -> str:
        return "Anchor" if confidence >= self.threshold else "NearAnchor"


@register_sampler("localleap", paper="arXiv 2510.07081", recorded=("localleap",))
def localleap(
    threshold: Probability = 0.9, relaxed: Probability = 0.75, radius: Natural = 4
) -> Sampler:
    """Threshold decoding with a lower one within `radius` positions of a very confident one."""
    return Sampler(select=NearAnchor(threshold, relaxed, radius))
