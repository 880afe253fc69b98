"""`survey`: what stands on each row of a canvas, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_place
from dlmdecode.ops.extension import register
from dlmdecode.ops.proposed import BAD


class Row(NamedTuple):
    """Numbers of one row, in the order of the columns of `Survey.rows`."""

    row: int
    branch: int
    start: int
    stop: int
    lo: int
    hi: int
    masks: int  # positions of the text still to be written
    open: int  # those of them in the open block
    mask_at: int  # the first of them; the canvas's length where there is none
    eos_at: int  # the text's first EOS, likewise
    bad: int  # proposals of logits that have no answer
    held: int  # 1 where the open block is held open

    @property
    def done(self) -> bool:
        return not self.masks and not self.held

    @property
    def full(self) -> bool:
        return not self.open and not self.held


class Survey(NamedTuple):
    masked: Tensor  # (N, L) bool, positions of the text still to be written
    open: Tensor  # (N, L) bool, those of them in the open block
    rows: Tensor  # (N, 12) int64, see `Row`


def reference(
    tokens: Tensor,
    proposed: Tensor,
    held: Tensor,
    numbers: list[Tensor],
    eos: Tensor,
    mask_id: int,
) -> tuple[Tensor, Tensor, Tensor]:
    start, stop, lo, hi = numbers[2:]
    length = tokens.shape[1]
    position = torch.arange(length, device=tokens.device)
    text = (position >= start[:, None]) & (position < stop[:, None])
    masked = (tokens == mask_id) & text
    open = masked & (position >= lo[:, None]) & (position < hi[:, None])
    ends = torch.isin(tokens, eos) & text

    def first(where: Tensor) -> Tensor:
        return torch.where(where.any(1), where.int().argmax(1), length)

    counts = (masked.sum(1), open.sum(1), first(masked), first(ends), (proposed == BAD).sum(1))
    return masked, open, torch.stack((*numbers, *counts, held.long()), 1)


def survey(
    tokens: Tensor,
    proposed: Tensor,
    held: Tensor,
    numbers: Sequence[Tensor],
    eos: Tensor,
    mask_id: int,
) -> Survey:
    """What is still to be written on a canvas, and its rows' numbers for the host to read at once.

    tokens, proposed: int64 (N, L). held: bool (N,). numbers: row, branch, start, stop, lo, hi, each
    int64 (N,): the text is [start, stop), its open block [lo, hi). eos: int64 (E,).
    """
    shape = tuple(tokens.shape)
    check_place("proposed", proposed, torch.int64, shape, tokens)
    check_place("held", held, torch.bool, shape[:1], tokens)
    require(len(numbers) == 6, "numbers", numbers, "give row, branch, start, stop, lo, hi")
    for number in numbers:
        check_place("numbers", number, torch.int64, shape[:1], tokens)
    canvas = (tokens.contiguous(), proposed.contiguous(), held.contiguous())
    return Survey(*run(*canvas, [number.contiguous() for number in numbers], eos, mask_id))


def fake(tokens, proposed, held, numbers, eos, mask_id):
    rows = tokens.new_empty(len(tokens), len(Row._fields))
    return *(torch.empty_like(tokens, dtype=torch.bool) for _ in range(2)), rows


run = register("survey", reference, fake)
