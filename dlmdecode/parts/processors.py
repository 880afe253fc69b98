"""Processors that reshape the logits themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Between, number, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor
from dlmdecode.decoding.positions import Positions


@dataclass(frozen=True)
class Temperature(Processor):
    """Logits divided by `temperature`, so that later parts see the tempered distribution."""

    by_position = True
    temperature: float

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        return logits / self.temperature


@dataclass(frozen=True)
class TopPFilter(Processor):
    """Keep the smallest set of best tokens whose probability reaches `top_p` (arXiv 1904.09751).

    Of the distribution at `temperature`, from which tokens are drawn.
    """

    by_position = True
    top_p: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        number("top_p", self.top_p, Between(0, 1, above=True))

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        if self.top_p == 1:
            return logits
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        mass = (ranked / self.temperature).softmax(-1, dtype=torch.float32).cumsum(-1)
        beyond = mass.roll(1, -1) > self.top_p
        beyond[..., 0] = False
        cut = torch.zeros_like(beyond).scatter(-1, order, beyond)
        return logits.masked_fill(cut, -torch.inf)


@dataclass(frozen=True)
class TopKFilter(Processor):
    """Keep the `top_k` best tokens."""

    by_position = True
    top_k: int

    def __post_init__(self) -> None:
        whole("top_k", self.top_k)

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        kth = logits.topk(min(self.top_k, logits.shape[-1]), -1).values[..., -1:]
        return logits.masked_fill(logits < kth, -torch.inf)


@dataclass(frozen=True)
class MinPFilter(Processor):
    """Keep the tokens at least `min_p` times as probable as the best one (arXiv 2407.01082).

    Of the distribution at `temperature`, from which tokens are drawn.
    """

    by_position = True
    min_p: float
    temperature: float = 1.0

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        gap = (logits - logits.amax(-1, keepdim=True)).float() / self.temperature
        return logits.masked_fill(gap.exp() < self.min_p, -torch.inf)


@dataclass(frozen=True)
class RepetitionPenalty(Processor):
    """Tokens that stand in the row are less likely to be written again (arXiv 1909.05858).

    Their logits are divided by `penalty` where positive and multiplied where negative. EOS is left
    alone: it fills what is behind the end of a text.
    """

    by_position = True
    penalty: float

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        size = logits.shape[-1]
        counts = rows.standing & (rows.tokens < size) & ~rows.is_eos(rows.tokens)
        seen = torch.zeros(len(logits), size + 1, dtype=torch.bool, device=logits.device)
        seen = seen.scatter(1, torch.where(counts, rows.tokens, size), True)[:, None, :size]
        less = torch.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return torch.where(seen, less, logits)


@dataclass(frozen=True)
class SuppressTokens(Processor):
    """Ids that are never written."""

    by_position = True
    ids: tuple[int, ...]

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        ids = torch.tensor([id for id in self.ids if id < logits.shape[-1]], device=logits.device)
        return logits.index_fill(-1, ids.long(), -torch.inf)


@dataclass(frozen=True)
class LogitsProcessors(Processor):
    """Transformers' processors, functions `(input_ids (n, T), scores (n, V)) -> scores`.

    Each row's positions are given together. Their `input_ids` are what stands in the row, prompt
    and text from left to right without the masks between, the same for all of them.

    Raises `ValueError` for scores of another shape.
    """

    functions: tuple[Callable[[Tensor, Tensor], Tensor], ...]

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        changed = []
        for scores, tokens, standing in zip(logits, rows.tokens, rows.standing, strict=True):
            ids, shape = tokens[standing].expand(len(scores), -1), scores.shape
            for function in self.functions:
                scores = function(ids, scores)
                same = isinstance(scores, Tensor) and scores.shape == shape
                require(same, "logits_processor", function, f"return scores {tuple(shape)}")
            changed.append(scores)
        return torch.stack(changed)


@dataclass(frozen=True)
class StandingProbability(Processor):
    """Remembers what the model now gives each token that stands in the open block, (B, L)."""

    reads_committed = True

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        standing = rows.tokens.gather(1, positions.at)[..., None]
        log_prob = logits.float().log_softmax(-1).gather(2, standing)[..., 0]
        column = positions.column(rows.position)
        known = positions.contains(rows.position)
        rows.memory[self] = torch.where(known, log_prob.exp().gather(1, column), torch.inf)
        return logits
