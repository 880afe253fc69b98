"""Scores: how sure each position is, where that is not simply the probability of its proposal."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmdecode.decoding.canvas import Canvas


@dataclass(frozen=True)
class NegativeEntropy:
    """−H of the position's distribution, in nats: 0 when certain."""

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return -canvas.proposal.entropy.double()


@dataclass(frozen=True)
class Margin:
    """Probability of the best token minus that of the second best."""

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        proposal = canvas.proposal
        return proposal.prob * -(-proposal.margin.double()).expm1()
