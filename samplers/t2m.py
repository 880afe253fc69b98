"""Token-to-mask refinement (arXiv 2604.18738): what no longer holds is masked, not replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Natural, OneOf, Probability, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.processors import StandingProbability
from dlmdecode.registry import register_sampler

DETECT = ("probability", "trigger")


@dataclass(frozen=True)
class Suspects(Revision):
    """Re-mask tokens of the open block that the model no longer believes in.

    By "probability" those that it now gives less than `threshold`; by "trigger" those where it is
    at least `threshold` sure of another token, which is when LLaDA2.1's editing replaces them. The
    least probable ones first, and fewer than the step committed. A block that is full is looked at
    once more, at most `most` times in all, and opened again where there are suspects.
    """

    reads_committed = True
    takes_back = True
    standing: StandingProbability
    detect: str = "probability"
    threshold: float = 0.3
    most: int = 1

    def __post_init__(self) -> None:
        whole("max_post_steps", self.most, 0)

    def suspect(self, canvas: Canvas) -> Tensor:
        """Tokens of the block that do not hold, (B, L) bool."""
        stands = canvas.block & ~canvas.masked
        if self.detect == "probability":
            return stands & (canvas.memory[self.standing] < self.threshold)
        other = canvas.proposal.token != canvas.tokens
        return stands & other & (canvas.proposal.prob >= self.threshold)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        number, full = committed.sum(1), ~canvas.open.any(1)
        looked = full & (number == 0)  # it was full before this step
        looks = self.looks(canvas) + looked.long()
        suspect = self.suspect(canvas) & ~committed
        prob = canvas.memory[self.standing].masked_fill(~suspect, torch.inf)
        rank = prob.argsort(dim=1, stable=True).argsort(dim=1)
        room = torch.where(looked, suspect.sum(1), (number - 1).clamp(min=0))
        back = suspect & (rank < room[:, None])
        canvas.remask(back)
        canvas.held = full & ~looked & ~back.any(1) & (looks < self.most)
        canvas.keep(self, canvas.lo + 1, looks)

    def looks(self, canvas: Canvas) -> Tensor:
        """How often the open block was looked at when it was full, (B,)."""
        none = torch.zeros_like(canvas.lo)
        begun, looks = canvas.recall(self, none, none)
        return torch.where(begun == canvas.lo + 1, looks, 0)


@register_sampler("t2m", over="threshold", paper="arXiv 2604.18738")
def t2m(
    detect: Annotated[str, OneOf(DETECT)] = "probability",
    remask_threshold: Probability = 0.3,
    max_post_steps: Natural = 1,
) -> Sampler:
    """Re-mask tokens of the open block that the model no longer believes in.

    The defaults are this library's.
    """
    standing = StandingProbability()
    suspects = Suspects(standing, detect, remask_threshold, max_post_steps)
    return Sampler(processors=(standing,), revisions=(suspects,))
