"""LocalLeap (arXiv 2510.07081): near a very sure position, be easier to please."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import require, require_finite
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler
from dlmdecode.select import by_rule


@dataclass(frozen=True)
class NearAnchor:
    """Positions at least `threshold` sure are anchors; within `radius` of one, `relaxed` does."""

    threshold: float = 0.9
    relaxed: float = 0.75
    radius: int = 4

    def __post_init__(self) -> None:
        require_finite("threshold", self.threshold)
        require_finite("relaxed", self.relaxed)
        require(self.radius >= 0, "radius", self.radius, "give a number of positions, 0 or more")

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(
            canvas,
            "relaxed",
            threshold=self.threshold,
            relaxed=self.relaxed,
            radius=self.radius,
        )


@register_sampler("localleap", paper="arXiv 2510.07081")
def localleap(threshold: float = 0.9, relaxed: float = 0.75, radius: int = 4) -> Sampler:
    """Threshold decoding with a lower bar within `radius` positions of a very sure one."""
    return Sampler(select=NearAnchor(threshold, relaxed, radius))
