"""What follows from the fields of a canvas: computed once, kept while they stay as they are.

Shapes: **B** sequences, **L** positions.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.decoding.proposal import Proposal
from dlmdecode.ops import Row, Survey

WRITTEN = ("masked", "open", "open_positions", "block_full", "done", "survey", "seen")
ROUND = 16
FOLLOWS = {  # facts that each field decides
    "tokens": WRITTEN,
    "start": ("text", "length", "text_span", *WRITTEN),
    "stop": ("text", "length", "text_span", "rest_span", *WRITTEN),
    "gaps": ("text", "length", "block", *WRITTEN),
    "lo": ("block", "block_span", "rest_span", *WRITTEN),
    "hi": ("block", "block_span", *WRITTEN),
    "row": ("survey", "seen"),
    "branch": ("survey", "seen"),
    "held": ("block_full", "done", "survey", "seen"),
}


class Facts:
    """The base class of `Canvas`, which has the fields."""

    tokens: Tensor
    start: Tensor
    stop: Tensor
    lo: Tensor
    hi: Tensor
    row: Tensor
    branch: Tensor
    held: Tensor
    gaps: Tensor | None
    proposal: Proposal
    mask_id: int
    eos_ids: tuple[int, ...]

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a field, and forget what followed from its old value."""
        known = self.__dict__
        facts = FOLLOWS.get(name, ())
        if name == "tokens" and name in known and value.shape != known[name].shape:
            facts = (*facts, "position", "text", "block")
        for fact in facts:
            known.pop(fact, None)
        known[name] = value

    @cached_property
    def position(self) -> Tensor:
        """0, 1, 2, … for each row, (B, L)."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)

    @cached_property
    def text(self) -> Tensor:
        """Positions of the text being written, (B, L) bool; what is given between gaps is none."""
        inside = Span(self.start, self.stop).contains(self.position)
        return inside if self.gaps is None else inside & (self.gaps > 0)

    @cached_property
    def length(self) -> Tensor:
        """How many these are, (B,) int64."""
        return self.stop - self.start if self.gaps is None else self.text.sum(1)

    @property
    def each_gap(self) -> list[Tensor]:
        """The text, or each of its gaps, as positions (B, L) bool."""
        if self.gaps is None:
            return [self.text]
        return [self.gaps == gap for gap in range(1, int(self.gaps.max()) + 1)]

    def before(self, at: Tensor) -> Tensor:
        """How many of them are before the positions `at` (B,), (B,) int64."""
        if self.gaps is None:
            return at - self.start
        return (self.text & (self.position < at[:, None])).sum(1)

    def ahead(self, at: Tensor, count: Tensor | int) -> Tensor:
        """Where the next `count` of them from the position `at` (B,) on end, (B,); may pass `stop`.

        So blocks and windows count what is to be written only.
        """
        if self.gaps is None:
            return at + count
        last = (self.before(at) + count)[:, None]
        return torch.maximum(at, torch.searchsorted(self.text.cumsum(1), last)[:, 0] + 1)

    @cached_property
    def block(self) -> Tensor:
        """Positions of the open block, (B, L) bool."""
        inside = Span(self.lo, self.hi).contains(self.position)
        return inside if self.gaps is None else inside & self.text

    @cached_property
    def survey(self) -> Survey:
        numbers = (self.row, self.branch, self.start, self.stop, self.lo, self.hi)
        tokens = self.tokens
        if self.gaps is not None:  # what is given is never to be written, nor ends anything
            tokens = tokens.masked_fill(~self.text, -1)
        return ops.survey(tokens, self.proposal.token, self.held, numbers, self.eos, self.mask_id)

    @cached_property
    def masked(self) -> Tensor:
        """Positions still to be written, (B, L) bool."""
        return self.survey.masked

    @property
    def standing(self) -> Tensor:
        """Positions that hold a token, prompt and text, (B, L) bool."""
        return (self.position < self.stop[:, None]) & ~self.masked

    @cached_property
    def open(self) -> Tensor:
        """Positions of the open block still to be written, (B, L) bool."""
        return self.survey.open

    @cached_property
    def block_full(self) -> Tensor:
        """Rows whose open block has nothing left to write, and is not held open, (B,) bool."""
        return ~self.open.any(1) & ~self.held

    @cached_property
    def done(self) -> Tensor:
        """Rows with nothing left to write, and no block held open, (B,) bool."""
        return ~self.masked.any(1) & ~self.held

    @cached_property
    def seen(self) -> list[Row]:
        """What the host knows of each row: where a step waits for the device, once."""
        return [Row(*numbers) for numbers in self.survey.rows.tolist()]

    @cached_property
    def text_span(self) -> Span:
        """The text being written, as positions."""
        return Span(self.start, self.stop).of_width(row.stop - row.start for row in self.seen)

    @cached_property
    def block_span(self) -> Span:
        """The open block, as positions."""
        return Span(self.lo, self.hi).of_width(row.hi - row.lo for row in self.seen)

    @cached_property
    def open_positions(self) -> Positions:
        """Where the open block is still to be written, or all of it where that is hardly more.

        Their number is rounded up: matrix products like it, and shapes repeat.
        """
        most = max(row.open for row in self.seen)
        width = -(-most // ROUND) * ROUND
        if width >= self.block_span.width:
            return self.block_span
        return Scattered(self.open).of_width(width)

    @cached_property
    def rest_span(self) -> Span:
        """The open block and what is behind it, as positions."""
        return Span(self.lo, self.stop).of_width(row.stop - row.lo for row in self.seen)

    @cached_property
    def eos(self) -> Tensor:
        """The end tokens, (E,) int64."""
        return torch.tensor(self.eos_ids, device=self.tokens.device)

    def is_eos(self, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, self.eos)
