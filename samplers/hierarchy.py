"""Hierarchical decoding (dInfer's HierarchyDecoder): split runs of masks at their surest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import require_finite
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler


@dataclass(frozen=True)
class RunPeaks:
    """The surest position of each run of consecutive masks if above `low`, and all above `high`."""

    high: float = 0.92
    low: float = 0.62

    def __post_init__(self) -> None:
        require_finite("threshold", self.high, infinite=True)
        require_finite("low_threshold", self.low, infinite=True)

    def __call__(self, canvas: Canvas) -> Tensor:
        open, confidence = canvas.open, canvas.confidence
        begins = open & ~torch.cat([torch.zeros_like(open[:, :1]), open[:, :-1]], 1)
        run = begins.long().cumsum(1) * open  # 0 outside the runs
        ranked = confidence.masked_fill(~open, -torch.inf)
        length = ranked.shape[1]
        peak = ranked.new_full((len(ranked), length + 1), -torch.inf)
        peak = peak.scatter_reduce(1, run, ranked, "amax").gather(1, run)
        at_peak = torch.where(open & (ranked == peak), canvas.position, length)
        first = at_peak.new_full((len(run), length + 1), length)
        first = first.scatter_reduce(1, run, at_peak, "amin").gather(1, run)
        is_peak = open & (canvas.position == first)
        return (is_peak & (confidence > self.low)) | (confidence > self.high)


@register_sampler("hierarchy", paper="dInfer (arXiv 2510.08666)")
def hierarchy(threshold: float = 0.92, low_threshold: float = 0.62) -> Sampler:
    """Commit all above `threshold`, and each mask run's surest position above `low_threshold`."""
    return Sampler(select=RunPeaks(threshold, low_threshold))
