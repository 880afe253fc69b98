"""KLASS (arXiv 2511.05664): commit what is both confident and stable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import Count, Positive, Probability, number, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor, Selection
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import EvenQuota, TopK
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class KLHistory(Processor):
    """Keeps how far each position's distribution moved in the last `length` steps, in nats.

    The logits of the previous step are kept for the positions that the recipe reads, those of the
    open block that are still to be written by default. A position seen for the first time has moved
    infinitely far, and the history starts anew with each block.
    """

    stateful = True
    compares_steps = True
    length: int = 2
    reads_canvas: bool = False

    def __post_init__(self) -> None:
        whole("kl_history", self.length)

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        if (self, "number") not in rows.memory:
            self.begin(logits, rows)
        names = ("number", "logits", "norm", "moved")
        known, before, norm, history = (rows.memory[self, name] for name in names)
        number = known.gather(1, positions.at)
        column = (number - 1).clamp(min=0)
        first = torch.arange(len(rows), device=number.device)[:, None] * before.shape[1]
        past = torch.where(number > 0, first + column, -1)
        nats, norm = ops.divergence(
            logits.flatten(0, 1),
            before.flatten(0, 1),
            norm.flatten(),
            past.flatten(),
            need=positions.real.flatten(),
        )
        older = history.gather(1, column[..., None].expand(-1, -1, self.length))[..., 1:]
        if any(row.full for row in rows.seen):
            older = older.masked_fill(rows.block_full[:, None, None], torch.inf)
        moved = torch.cat([older, nats.view_as(number)[..., None]], -1)
        number = positions.column(rows.position) + 1  # 0 where there is no distribution
        rows.memory[self, "number"] = number.where(positions.contains(rows.position), 0)
        rows.memory[self, "moved"] = moved.masked_fill(past[..., None] < 0, torch.inf)
        rows.memory[self, "logits"], rows.memory[self, "norm"] = logits, norm.view_as(past)
        return logits

    def begin(self, logits: Tensor, rows: Canvas) -> None:
        """Nothing is known of any position; there is a column for what is looked up in vain."""
        rows.memory[self, "number"] = torch.zeros_like(rows.tokens)
        rows.memory[self, "logits"] = logits[:, :1]
        rows.memory[self, "norm"] = logits.new_zeros(len(rows), 1, dtype=torch.float64)
        shape = (len(rows), 1, self.length)
        rows.memory[self, "moved"] = logits.new_zeros(shape, dtype=torch.float32)

    def largest(self, canvas: Canvas) -> Tensor:
        """The largest move of each position in the kept steps, infinite where unknown, (B, L)."""
        number, moved = canvas.memory[self, "number"], canvas.memory[self, "moved"]
        known = moved.amax(-1).gather(1, (number - 1).clamp(min=0))
        return known.masked_fill(number == 0, torch.inf)


@dataclass(frozen=True)
class ConfidentAndStable(Selection):
    """Every position above `threshold` whose distribution moved less than `kl_threshold` lately.

    Where there is none, the most confident ones as a schedule says.
    """

    history: KLHistory
    fallback: TopK
    threshold: float = 0.6
    kl_threshold: float = 0.015

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        number("kl_threshold", self.kl_threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        stable = self.history.largest(canvas) < self.kl_threshold
        ready = canvas.open & stable & (canvas.confidence > self.threshold)
        return torch.where(ready.any(1, keepdim=True), ready, self.fallback(canvas))


@register_sampler(
    "klass",
    paper="arXiv 2511.05664",
    recorded=("klass",),
    second=("d2-klass",),
    presets={"Dream": {"threshold": 0.9, "kl_threshold": 0.001}},
)
def klass(
    threshold: Probability = 0.6,
    kl_threshold: Positive = 0.015,
    kl_history: Count = 2,
    steps: Count | None = None,
) -> Sampler:
    """Commit positions that are confident and whose distribution has stopped moving."""
    history = KLHistory(kl_history)
    rule = ConfidentAndStable(history, TopK(EvenQuota(steps)), threshold, kl_threshold)
    return Sampler(select=rule, processors=(history,))
