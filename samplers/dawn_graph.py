"""DAWN's graph: which position attends to which, by the attention of a model's last layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.caches import Recompute, gather_states
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.models.protocol import Denoiser, Watch, attention_weights
from dlmdecode.parts.evaluation import require_attention
from dlmdecode.settings import Settings

EDGES, PROB = "attention edges", "probability"  # memory: (B, L, L) bool, (B, L)
QUERIES = 64  # whose weights are held at once


class MeanAttention(Watch):
    """The mean over heads and over the layers from `first` on: `total` / `num` (N, L, L)."""

    def __init__(self, first: int):
        self.first, self.num = first, 0
        self.total = torch.zeros((), device="cpu")

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        if layer >= self.first:  # a mask of the whole canvas is the same for all queries
            some = (attention_weights(q, keys, attend).mean(1) for q in queries.split(QUERIES, 2))
            self.total, self.num = self.total + torch.cat(list(some), 1), self.num + 1


@dataclass(frozen=True)
class DependencyGraph(Evaluation):
    """Remembers which position attends to which, and how sure the model is at every position.

    Attention is averaged over the layers from `first_layer` on, the last eighth if None. A position
    that all of them look at, more than `sink` on average, tells nothing; i depends on j where it
    gives it `edge` or more.
    """

    sink: float = 0.01
    edge: float = 0.07
    first_layer: int | None = None

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        require_attention(model, settings, "dawn")
        layers, first = model.num_layers or 0, self.first_layer
        fix = f"the model has {layers} layers"
        require(first is None or first < layers, "first_layer", first, fix)
        return Attentive(model, self, layers * 7 // 8 if first is None else first)


class Attentive(Recompute):
    """No cache, and the graph of each row."""

    def __init__(self, model: Denoiser, graph: DependencyGraph, first: int):
        super().__init__(model)
        self.graph, self.first = graph, first

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.hook = watch = MeanAttention(self.first)
        logits, every = super().__call__(rows, Span(torch.zeros_like(rows.stop), rows.stop))
        rows.memory[PROB], rows.memory[EDGES] = self.read(rows, logits, watch.total / watch.num)
        return gather_states(logits, wanted.at), wanted

    def read(self, rows: Canvas, logits: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, L), and edges (N, L, L) from mean attention between L positions."""
        length, behind = rows.tokens.shape[1], rows.tokens.shape[1] - mean.shape[1]
        here = Span(torch.zeros_like(rows.stop), rows.stop).contains(rows.position)
        mean = torch.nn.functional.pad(mean, (0, behind, 0, behind)) * here[:, :, None]
        sunk = mean.sum(1) / here.sum(1, keepdim=True) > self.graph.sink
        itself = torch.eye(length, dtype=torch.bool, device=mean.device)
        edges = (mean >= self.graph.edge) & ~sunk[:, None] & ~itself
        best = ops.propose(logits.flatten(0, 1), exclude=rows.mask_id)
        prob = best.log_prob.exp().view(len(rows), -1)
        return torch.nn.functional.pad(prob, (0, length - prob.shape[1])), edges
