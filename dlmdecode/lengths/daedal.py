"""DAEDAL (arXiv 2508.00819): a first length by EOS, then room where the model is unsure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import Count, Probability
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.lengths.base import LENGTHS, InitialLength, Room, eos_confidence


@dataclass(frozen=True)
class Expansion(Revision):
    """First nothing is written, and the text grows by `unit` masks while its end is out of sight.

    That is while the confidence of its last `window` EOS is below `enough`; then half as many EOS
    are put behind it. From there on, where that confidence is below `expand`, the least sure mask
    of the block becomes `unit` masks if it is less than `unsure` sure, one a step, until the text
    was once as long as there is room for. What has no room moves out at the end.
    """

    reads_canvas = True
    reads_committed = True
    takes_back = True
    stateful = True
    compares_steps = True
    room: Room
    unit: int
    window: int
    enough: float
    expand: float
    unsure: float

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        none = torch.zeros_like(canvas.held)
        begun, ended = canvas.recall(self, none, none)
        left = self.room.left(canvas)
        ended = ended | (begun & (left <= 0))
        confidence = eos_confidence(canvas, self.window)
        expands = begun & ~ended & (confidence < self.expand)
        self.take_back(canvas, committed, ~begun)
        grows = ~begun & (confidence < self.enough) & (left > 0)
        self.end(canvas, ~begun & ~grows, left)
        canvas.grow(left.clamp(max=self.unit) * grows)
        self.insert(canvas, expands)
        self.room.reopen(canvas)
        canvas.keep(self, begun | ~grows, ended)

    def take_back(self, canvas: Canvas, committed: Tensor, rows: Tensor) -> None:
        """Undo the commit of `rows` (B,)."""
        canvas.remask(committed & rows[:, None])
        undone = (committed.any(1) & rows).long()
        canvas.step, canvas.block_step = canvas.step - undone, canvas.block_step - undone

    def end(self, canvas: Canvas, rows: Tensor, left: Tensor) -> None:
        """Put EOS behind the text of `rows` (B,)."""
        stop = canvas.stop
        canvas.grow(left.clamp(max=self.window // 2) * rows)
        new = (canvas.position >= stop[:, None]) & canvas.text
        canvas.tokens = canvas.tokens.masked_fill(new, canvas.eos_ids[0])

    def insert(self, canvas: Canvas, rows: Tensor) -> None:
        """Make room at the least sure mask of the block of `rows` (B,)."""
        unsure = canvas.open & (canvas.proposal.prob < self.unsure) & rows[:, None]
        at = canvas.proposal.prob.masked_fill(~unsure, torch.inf).argmin(1)
        canvas.insert(at, unsure.any(1) * (self.unit - 1), canvas.limit)


@LENGTHS.register("daedal", paper="arXiv 2508.00819")
def daedal(
    room: Room,
    initial: Count | None = None,
    unit: Count = 8,
    window: Count = 32,
    enough: Probability = 0.5,
    expand: Probability = 0.9,
    unsure: Probability = 0.1,
) -> Sampler:
    """Find a length before the first token, then make room where a position is unsure."""
    rule = Expansion(room, unit, window, enough, expand, unsure)
    return Sampler(openings=(InitialLength(room.first(initial)),), revisions=(rule,))
