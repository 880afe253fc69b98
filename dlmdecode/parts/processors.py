"""Processors that reshape the logits themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Between, number, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor
from dlmdecode.decoding.positions import Positions


@dataclass(frozen=True)
class Temperature(Processor):
    """Logits divided by `temperature`, so that later parts see the tempered distribution."""

    temperature: float

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        return logits / self.temperature


@dataclass(frozen=True)
class TopPFilter(Processor):
    """Keep the smallest set of best tokens whose probability reaches `top_p` (arXiv 1904.09751)."""

    top_p: float

    def __post_init__(self) -> None:
        number("top_p", self.top_p, Between(0, 1, above=True))

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        if self.top_p == 1:
            return logits
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        mass = ranked.softmax(-1, dtype=torch.float32).cumsum(-1)
        beyond = mass.roll(1, -1) > self.top_p
        beyond[..., 0] = False
        cut = torch.zeros_like(beyond).scatter(-1, order, beyond)
        return logits.masked_fill(cut, -torch.inf)


@dataclass(frozen=True)
class TopKFilter(Processor):
    """Keep the `top_k` best tokens."""

    top_k: int

    def __post_init__(self) -> None:
        whole("top_k", self.top_k)

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        kth = logits.topk(min(self.top_k, logits.shape[-1]), -1).values[..., -1:]
        return logits.masked_fill(logits < kth, -torch.inf)
