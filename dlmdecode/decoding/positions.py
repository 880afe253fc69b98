"""Positions of each row: contiguous ones, or with gaps between them.

Shapes: **N** rows, **M** positions asked about, **L** positions of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Positions `[lo, hi)` of each row; both (N,) int64."""

    lo: Tensor
    hi: Tensor

    @property
    def count(self) -> Tensor:
        """How many each row has, (N,) int64."""
        return (self.hi - self.lo).clamp(min=0)

    @cached_property
    def width(self) -> int:
        """How many the row with the most has, at least 1."""
        return max(int((self.hi - self.lo).max()), 1)

    @cached_property
    def at(self) -> Tensor:
        """The positions themselves, (N, width) int64; shorter rows repeat their last one."""
        offset = torch.arange(self.width, device=self.lo.device)
        return torch.minimum(self.lo[:, None] + offset, (self.hi - 1)[:, None]).clamp(min=0)

    @cached_property
    def real(self) -> Tensor:
        """Which columns of `at` a row has, (N, width) bool: the others repeat one, or none."""
        return torch.arange(self.width, device=self.lo.device) < (self.hi - self.lo)[:, None]

    def of_width(self, widths: Iterable[int]) -> Span:
        """The same, of rows whose widths the host knows."""
        self.__dict__["width"] = max(widths, default=1) or 1  # in place of the cached property's
        return self

    def contains(self, position: Tensor) -> Tensor:
        """Which of `position` (N, M) are among them, (N, M) bool."""
        return (position >= self.lo[:, None]) & (position < self.hi[:, None])

    def column(self, position: Tensor) -> Tensor:
        """Where in `at` each of `position` (N, M) stands, (N, M) int64; in range elsewhere too."""
        return (position - self.lo[:, None]).clamp(0, self.width - 1)

    def within(self, lo: Tensor, hi: Tensor) -> Span:
        """Those of them in `[lo, hi)`, both (N,)."""
        return Span(torch.maximum(self.lo, lo), torch.minimum(self.hi, hi))

    def part(self, first: int, count: int) -> Span:
        """Those in `count` columns of `at` from the column `first` on."""
        lo = self.lo + first
        return Span(lo, torch.minimum(lo + count, self.hi)).of_width([count])

    def take(self, index: Tensor) -> Span:
        """Rows `index`, repeats allowed."""
        return Span(self.lo[index], self.hi[index])

    @classmethod
    def cat(cls, parts: Sequence[Span]) -> Span:
        """The rows of several."""
        return cls(torch.cat([part.lo for part in parts]), torch.cat([part.hi for part in parts]))


@dataclass(frozen=True)
class Scattered:
    """The positions where `where` (N, L) is true; the same questions as `Span` answers."""

    where: Tensor

    @cached_property
    def count(self) -> Tensor:
        return self.where.sum(1)

    @cached_property
    def width(self) -> int:
        return max(int(self.count.max()), 1)

    def of_width(self, width: int) -> Scattered:
        """The same, where the host knows how many the row with the most has."""
        self.__dict__["width"] = max(width, 1)  # in place of the cached property's
        return self

    @cached_property
    def at(self) -> Tensor:
        ranked = self.where.byte().argsort(dim=1, descending=True, stable=True)
        first = ranked[:, : self.width]
        last = (self.count - 1).clamp(min=0)[:, None]
        return first.gather(1, torch.minimum(self.columns, last))

    @cached_property
    def columns(self) -> Tensor:
        return torch.arange(self.width, device=self.where.device)

    @cached_property
    def real(self) -> Tensor:
        return self.columns < self.count[:, None]

    @property
    def lo(self) -> Tensor:
        return self.at[:, 0]

    @property
    def hi(self) -> Tensor:
        return torch.where(self.count > 0, self.at[:, -1] + 1, self.lo)

    def contains(self, position: Tensor) -> Tensor:
        return self.where.gather(1, position)

    def column(self, position: Tensor) -> Tensor:
        before = self.where.cumsum(1) - self.where.long()
        return before.gather(1, position).clamp(max=self.width - 1)

    def within(self, lo: Tensor, hi: Tensor) -> Scattered:
        position = torch.arange(self.where.shape[1], device=lo.device)
        return Scattered(self.where & Span(lo, hi).contains(position))

    def part(self, first: int, count: int) -> Scattered:
        rank = self.where.cumsum(1) - 1
        return Scattered(self.where & (rank >= first) & (rank < first + count)).of_width(count)

    def take(self, index: Tensor) -> Scattered:
        return Scattered(self.where[index])

    @classmethod
    def cat(cls, parts: Sequence[Scattered]) -> Scattered:
        return cls(torch.cat([part.where for part in parts]))


Positions = Span | Scattered
"""Some positions of each row, ascending. Both have `lo`, `hi`, `count`, `width`, `at`, `real`,
`contains`, `column`, `within`, `part`, `take` and `cat`."""


def join_positions(parts: Sequence[Positions], length: int) -> Positions:
    """The rows of several, which may be of either kind, on a canvas of `length` positions."""
    if all(isinstance(part, Span) for part in parts):
        return Span.cat([part for part in parts if isinstance(part, Span)])
    every = torch.arange(length, device=parts[0].lo.device)
    return Scattered(torch.cat([part.contains(every.expand(len(part.lo), -1)) for part in parts]))


def stack(parts: Sequence[Tensor]) -> Tensor:
    """The rows of several tensors, with zeros behind where another one is larger."""
    sizes = [max(size) for size in zip(*(part.shape[1:] for part in parts), strict=True)]
    whole = parts[0].new_zeros(sum(map(len, parts)), *sizes)
    for part, rows in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        rows[tuple(slice(size) for size in part.shape)] = part
    return whole
