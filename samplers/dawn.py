"""DAWN (arXiv 2602.06953): commit together what does not attend to one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Natural, Probability, number
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.dawn_graph import EDGES, PROB, DependencyGraph


@dataclass(frozen=True)
class Independent(Selection):
    """Sure positions, those that sure text induces, and of the others no two that depend.

    At least `threshold` sure; at least `induced` sure and depending on a written position where the
    model is `threshold` sure; at least `low` sure, not tied to any of these, the most confident
    first.
    """

    threshold: float = 0.9
    induced: float = 0.7
    low: float = 0.7

    def __post_init__(self) -> None:
        number("threshold", self.threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        if EDGES not in canvas.memory:
            return torch.zeros_like(canvas.open)
        edges, sure = canvas.memory[EDGES], canvas.confidence
        open = canvas.open
        before = canvas.position < canvas.hi[:, None]
        anchors = ~open & before & (canvas.memory[PROB] >= self.threshold)
        high = open & (sure >= self.threshold)
        induced = open & (sure >= self.induced) & (edges & anchors[:, None]).any(2)
        others = open & (sure >= self.low) & ~high & ~induced
        others = others & ~self.tied(edges, high, induced)
        return high | induced | self.apart(edges, others, sure)

    def tied(self, edges: Tensor, high: Tensor, induced: Tensor) -> Tensor:
        """Positions (B, L) that depend on one of those, or the other way round."""
        chosen = high | induced
        return (edges & chosen[:, None]).any(2) | (edges & chosen[:, :, None]).any(1)

    def apart(self, edges: Tensor, others: Tensor, sure: Tensor) -> Tensor:
        """The most confident of `others`, then the next that is not tied to it, and so on."""
        taken = torch.zeros_like(others)
        while others.any():
            best = sure.masked_fill(~others, -torch.inf).argmax(1, keepdim=True)
            one = torch.zeros_like(others).scatter(1, best, True) & others
            taken = taken | one
            others = others & ~one & ~self.tied(edges, one, one)
        return taken


@register_sampler("dawn", paper="arXiv 2602.06953", recorded=("dawn", "dream-dawn"))
def dawn(
    threshold: Probability = 0.9,
    induced: Probability = 0.7,
    low: Probability = 0.7,
    sink: Probability = 0.01,
    edge: Probability = 0.07,
    first_layer: Natural | None = None,
) -> Sampler:
    """Commit confident positions, and less confident ones that attend to no other one of them."""
    graph = DependencyGraph(sink, edge, first_layer)
    return Sampler(Independent(threshold, induced, low), evaluate=graph)
