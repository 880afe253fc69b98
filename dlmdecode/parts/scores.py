"""Scores: how sure each position is, where that is not simply the probability of its proposal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Part, Score


@dataclass(frozen=True)
class NegativeEntropy(Score):
    """−H of the position's distribution, in nats: 0 when certain."""

    replaces = True
    signed = True

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return -canvas.proposal.entropy.double()


@dataclass(frozen=True)
class Margin(Score):
    """Probability of the best token minus that of the second best."""

    replaces = True

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        proposal = canvas.proposal
        return proposal.prob * -(-proposal.margin.double()).expm1()


@dataclass(frozen=True)
class EosFactor(Score):
    """Probability of an EOS proposal times a factor that grows from `low` to `high`."""

    low: float
    high: float

    @abstractmethod
    def progress(self, canvas: Canvas) -> Tensor:
        """How far the factor has grown, (B,) from 0 to 1."""

    def __post_init__(self) -> None:
        ordered = 0 <= self.low <= self.high
        require(ordered, "gamma_min", self.low, f"give 0 or more, at most gamma_max={self.high}")

    def refuses(self, other: Part) -> str | None:
        if isinstance(other, Score) and other.signed:
            return "its factor makes a probability less, and a confidence below 0 more"
        return None

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        factor = self.low + (self.high - self.low) * self.progress(canvas)
        ends = canvas.is_eos(canvas.proposal.token)
        return torch.where(ends, confidence * factor[:, None], confidence)
