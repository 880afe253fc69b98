"""Learn2PD (arXiv 2509.25188): a small trained filter says which proposals are final."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dlmdecode.checks import Count, PositiveProbability, Probability, number, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule, Estimator, Part, Revision, Selection, TakeBest
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks, WholeCanvas
from dlmdecode.parts.remasking import first
from dlmdecode.parts.select import EvenQuota, TopK
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter


@dataclass(frozen=True, eq=False)
class LearnedAcceptance(Selection):
    """Masked positions that the filter accepts, and the most confident ones of a schedule.

    The filter sees the model's confidence at every position of the block, the written ones too;
    None stands for the one beside the model's weights until `bind` reads it.
    """

    reads_committed = True
    filter: AcceptanceFilter | None
    schedule: TopK
    threshold: float = 0.96

    def __post_init__(self) -> None:
        number("threshold", self.threshold)

    def bind(self, model: Any) -> Self:
        filter = self.filter or AcceptanceFilter.of(model)
        return replace(self, filter=filter.to(model.device))

    def refuses(self, other: Part) -> str | None:
        if isinstance(other, Estimator) and not isinstance(other, TakeBest):
            return "the filter was trained on the model's own confidences"
        if isinstance(other, BlockSchedule) and not isinstance(other, FixedBlocks | WholeCanvas):
            return "the filter was trained on blocks of one length"
        return None

    def check(self, sampler: Sampler) -> None:
        if self.filter is None or sampler.blocks is None:
            return
        length = sampler.blocks.length if isinstance(sampler.blocks, FixedBlocks) else None
        width = self.filter.width
        fix = f"the filter was trained on blocks of at most {width} positions"
        require(length is not None and length <= width, "block_length", length, fix)

    def accepted(self, canvas: Canvas) -> Tensor:
        """Block positions the filter accepts, masked or not, (B, L)."""
        assert self.filter is not None, "`bind` finds the filter"
        prob, block, width = canvas.proposal.prob, canvas.block, self.filter.width
        column = (block.cumsum(1) - 1).clamp(0, width - 1)
        seen = prob.new_zeros(len(prob), width + 1).scatter(1, column.where(block, width), prob)
        sure = self.filter(seen[:, :width].float()).sigmoid() > self.threshold
        return block & sure.gather(1, column)

    def __call__(self, canvas: Canvas) -> Tensor:
        return self.accepted(canvas) | self.schedule(canvas)


@dataclass(frozen=True)
class EndOfTextPrediction(Revision):
    """Cut the text after the first masked position whose EOS proposal is at least `prob` sure."""

    reads_canvas = True
    prob: float = 0.998

    def __post_init__(self) -> None:
        require(0 < self.prob <= 1, "eot", self.prob, "give a probability in (0, 1]")

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        ends = canvas.masked & canvas.is_eos(canvas.proposal.token)
        at = first(ends & (canvas.proposal.prob >= self.prob))
        canvas.truncate(torch.where(at < canvas.tokens.shape[1], at + 1, canvas.stop))


@register_sampler(
    "learn2pd",
    paper="arXiv 2509.25188",
    recorded=("learn2pd",),
    presets={"Dream": {"threshold": 0.9}},
)
def learn2pd(
    filter: str | os.PathLike[str] | AcceptanceFilter | None = None,
    threshold: Probability = 0.96,
    eot: PositiveProbability | None = None,
    steps: Count | None = None,
) -> Sampler:
    """Commit what a trained filter accepts; `eot` cuts the text at an EOS proposal that sure.

    `filter` is a safetensors file (`python -m training.filter` trains one) or the filter itself;
    None takes `filter.safetensors` beside the model's weights.
    """
    loaded = AcceptanceFilter.load(filter) if isinstance(filter, str | os.PathLike) else filter
    known = loaded is None or isinstance(loaded, AcceptanceFilter)
    require(known, "filter", loaded, "give a safetensors file, an AcceptanceFilter, or None")
    schedule = TopK(EvenQuota(steps))
    return Sampler(
        select=LearnedAcceptance(loaded, schedule, threshold),
        revisions=() if eot is None else (EndOfTextPrediction(eot),),
    )
