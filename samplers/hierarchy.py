"""Hierarchical decoding (dInfer's HierarchyDecoder): split runs of masks where confident."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Probability, number, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class RunPeaks(Selection):
    """Each mask run's most confident position if above `low`, and all above `high`.

    None for `low` takes every such position, None for `high` no others.
    """

    high: float | None = 0.92
    low: float | None = 0.62

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.high), ("low_threshold", self.low)):
            if value is not None:
                number(name, value)

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
        if self.low is not None:
            is_peak = is_peak & (confidence > self.low)
        return is_peak if self.high is None else is_peak | (confidence > self.high)


@register_sampler("hierarchy", paper="dInfer (arXiv 2510.08666)", recorded=("dinfer-decoders",))
def hierarchy(
    threshold: Probability | None = 0.92, low_threshold: Probability | None = 0.62
) -> Sampler:
    """Commit all above `threshold`, and each mask run's best position above `low_threshold`.

    None leaves out the rule for all, or the threshold of a run's best position.
    """
    lower = threshold is None or low_threshold is None or low_threshold <= threshold
    require(lower, "low_threshold", low_threshold, f"give at most threshold={threshold}, or None")
    return Sampler(select=RunPeaks(threshold, low_threshold))
