"""Drafts: rows in which a verification tries what it might commit.

A draft is one more row of the batch: the canvas as it would be after further commits. The rows of a
sequence stand together, its own row (branch 0) first.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule, Part, Verification


class Drafts(Verification):
    """A verification by drafts of one block."""

    def refuses(self, other: Part) -> str | None:
        if isinstance(other, BlockSchedule) and other.slides:
            return "drafts stay in one window, and it slides with every commit"
        return "drafts assume that what is committed stays" if other.takes_back else None


def fan_out(canvas: Canvas, num: Tensor) -> Canvas:
    """Each row `num` (B,) times, numbered from 0 in `branch`."""
    each = torch.arange(len(canvas), device=num.device).repeat_interleave(num)
    rows = canvas.take(each)
    first = num.cumsum(0) - num
    rows.branch = torch.arange(len(rows), device=num.device) - first[each]
    return rows


def only(rows: Canvas, useful: list[bool]) -> Canvas:
    """The rows that are worth a forward."""
    if all(useful):
        return rows
    return rows.take(torch.tensor(useful, device=rows.lo.device).nonzero()[:, 0])


def sequence_of(rows: Canvas) -> Tensor:
    """Which sequence each row is of, 0, 1, … in order, (N,) int64."""
    return rows.row.unique_consecutive(return_inverse=True)[1]


def by_branch(rows: Canvas, value: Tensor, empty: float = -torch.inf) -> Tensor:
    """The rows' `value` (N,) as a table (B, D) of sequences and branches, `empty` elsewhere."""
    sequence = sequence_of(rows)
    shape = int(sequence[-1]) + 1, max(row.branch for row in rows.seen) + 1
    return value.new_full(shape, empty).index_put((sequence, rows.branch), value)


def keep(rows: Canvas, branch: Tensor) -> Canvas:
    """Of each sequence the row that is numbered `branch` (B,), as its own."""
    kept = rows.take((rows.branch == branch[sequence_of(rows)]).nonzero()[:, 0])
    return replace(kept, branch=torch.zeros_like(kept.branch))
