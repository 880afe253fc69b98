"""LLaDA2.1's token editing (arXiv 2602.08676): what stands in the open block may still change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Natural, Probability, number, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class Edits(Revision):
    """Replace tokens of the open block where the model is now surer than `threshold` of another.

    A block that is full is held open, and forwarded until nothing changes, at most `most` times.
    """

    reads_committed = True
    takes_back = True
    threshold: float = 0.5
    most: int = 16

    def __post_init__(self) -> None:
        number("editing_threshold", self.threshold)
        whole("max_post_steps", self.most, 0)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        proposal, stands = canvas.proposal, canvas.block & ~canvas.masked & ~committed
        other = (proposal.token != canvas.tokens) & (proposal.prob > self.threshold)
        edited = stands & other
        canvas.tokens = torch.where(edited, proposal.token, canvas.tokens)
        full = ~canvas.open.any(1)
        again = full & ~committed.any(1)  # it was full before this step
        count = canvas.memory.get(self, torch.zeros_like(canvas.step))
        count = torch.where(again, count + 1, 0)
        canvas.held = full & (count < self.most) & (edited.any(1) | ~again)
        canvas.memory[self] = count


@register_sampler(
    "edit", over="threshold", paper="LLaDA2.1 (arXiv 2602.08676)", recorded=("llada2-moe",)
)
def edit(editing_threshold: Probability = 0.5, max_post_steps: Natural = 16) -> Sampler:
    """Replace tokens of the open block that no longer hold, until it is full and nothing changes.

    Published with threshold=0.7 for quality; for speed threshold=0.5, editing_threshold=0.
    """
    return Sampler(revisions=(Edits(editing_threshold, max_post_steps),))
