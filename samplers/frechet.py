"""Fréchet profile decoding (Fast-dLLM++, arXiv 2606.02955)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from dlmdecode.checks import Between, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class FrechetProfile(Selection):
    """The longest prefix whose worst-case joint probability beats any rival by more than `delta`.

    Gₙ = max(0, Σ_{j≤n} cⱼ − (n − 1)) − (1 − cₙ): the first term is the Fréchet lower bound of the
    joint probability of the n most confident tokens, the second an upper bound of any other choice.
    """

    delta: float = 0.25

    def __post_init__(self) -> None:
        number("delta", self.delta)

    def __call__(self, canvas: Canvas) -> Tensor:
        return by_rule(canvas, "frechet", delta=self.delta)


@register_sampler("frechet", paper="arXiv 2606.02955")
def frechet(delta: Annotated[float, Between(-1, 1)] = 0.25) -> Sampler:
    """Commit the most confident positions while their Fréchet bound is `delta` above any rival."""
    return Sampler(select=FrechetProfile(delta))
