"""Classifier-free guidance, as a wrapper of the forward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Headed, headed
from dlmdecode.decoding.positions import Positions, Span


class Guided(Headed):
    """Logits `u + (1 + scale)(z − u)`, u from one whose given text is masked (arXiv 2502.09992).

    With `negative` prompts, by row, u comes from the same text behind these. One call of twice the
    rows. The unconditional rows have row numbers of their own, `num_rows` and up, so a key/value
    cache keeps them apart; 0 takes as many as the first call has.
    """

    def __init__(
        self,
        forward: Forward,
        scale: float,
        num_rows: int = 0,
        negative: list[Tensor] | None = None,
    ):
        self.forward, self.work = forward, forward.work
        self.headed = headed(forward)
        self.in_slices = self.headed is not None
        self.scale, self.num_rows = scale, num_rows
        self.negative = None if negative is None else Negative(negative)

    def admit(self, prompts: Mapping[int, Tensor | None]) -> None:
        """Take in other sequences, whose negative prompts these are, by place."""
        for row, prompt in prompts.items():
            if self.negative is not None and prompt is not None:
                self.negative.place(row, prompt)

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        """Those of twice the rows; or their logits, where the forward gives no states."""
        self.num_rows = max(self.num_rows, int(rows.row.max()) + 1)
        n = torch.arange(len(rows), device=rows.tokens.device)
        twice = torch.cat([n, n])
        both, wanted = rows.take(twice), wanted.take(twice)
        blind = torch.arange(len(both), device=n.device) >= len(rows)
        if self.negative is None:
            hidden = blind[:, None] & self.given(both)
            both.tokens = both.tokens.masked_fill(hidden, rows.mask_id)
        else:
            both, wanted = self.negative.put(both, blind, wanted)
        both.row = both.row + blind * self.num_rows
        states = self.headed.states if self.headed else self.forward
        hidden, positions = states(both, wanted)
        return hidden, positions.take(n)

    def head(self, hidden: Tensor) -> Tensor:
        logits = self.headed.head(hidden) if self.headed else hidden
        guided, free = logits.chunk(2)
        return free + (1 + self.scale) * (guided - free)

    def slice_width(self, hidden: Tensor) -> int:
        return self.headed.slice_width(hidden) if self.headed else hidden.shape[1]

    def given(self, rows: Canvas) -> Tensor:
        """What the unconditional rows do not see, (N, L) bool."""
        if rows.gaps is None:
            return rows.position < rows.start[:, None]
        return (rows.position < rows.stop[:, None]) & ~rows.text


class Negative:
    """Prompts that take the place of others: what is written behind them moves along."""

    def __init__(self, prompts: list[Tensor]):
        device = prompts[0].device
        self.length = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.ids = self.length.new_zeros(len(prompts), max(int(self.length.max()), 1))
        for row, prompt in enumerate(prompts):
            self.ids[row, : len(prompt)] = prompt
        self.width = 0  # of the canvas, which must not shrink under a cache when rows drop out

    def place(self, row: int, prompt: Tensor) -> None:
        """Give the place `row` to another sequence with a negative prompt of its own, (P,)."""
        more = len(prompt) - self.ids.shape[1]
        self.ids = F.pad(self.ids, (0, max(more, 0)))
        self.ids[row, : len(prompt)], self.length[row] = prompt, len(prompt)

    def put(self, rows: Canvas, where: Tensor, wanted: Positions) -> tuple[Canvas, Positions]:
        """`rows` with other prompts `where` (N,), and the positions that `wanted` are there."""
        assert isinstance(wanted, Span), "positions that move are a span"
        length = torch.where(where, self.length[rows.row], rows.start)
        shift, width = length - rows.start, rows.tokens.shape[1]
        self.width = max(self.width, width + max(int(shift.max()), 0))
        rows = rows.resize(self.width)
        position = torch.arange(self.width, device=shift.device).expand(len(rows), -1)
        moved = (position - shift[:, None]).clamp(0, width - 1)
        prompt = self.ids[rows.row].gather(1, position.clamp(max=self.ids.shape[1] - 1))
        replaced = where[:, None] & (position < length[:, None])
        tokens = torch.where(replaced, prompt, rows.tokens.gather(1, moved))
        behind = position >= (rows.stop + shift)[:, None]
        rows.tokens = tokens.masked_fill(behind, rows.eos_ids[0])
        rows.memory = {key: along(kept, moved) for key, kept in rows.memory.items()}
        for name in ("start", "stop", "lo", "hi"):
            setattr(rows, name, getattr(rows, name) + shift)
        return rows, Span(wanted.lo + shift, wanted.hi + shift)


def along(kept: Tensor, moved: Tensor) -> Tensor:
    """What a part remembers of positions, those of the columns `moved` (N, L)."""
    if kept.dim() < 2 or kept.shape[1] != moved.shape[1]:
        return kept
    index = moved.view(*moved.shape, *(1,) * (kept.dim() - 2))
    return kept.gather(1, index.expand(-1, -1, *kept.shape[2:]))
