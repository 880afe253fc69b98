"""A forward: how the rows of a canvas reach the model. Caches and guidance are forwards.

Rules never notice which one is at work: a forward returns logits of the positions it computed and
says which these are, and the proposals elsewhere keep their last value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser

SLICE_BYTES = 1 << 28  # of logits at a time; smaller slices make the head slow on a CPU


@dataclass
class Work:
    """What a decoding cost: model calls, rows over all calls, token positions over all rows.

    `refreshes` are the rows whose kept keys and values were computed anew, over all calls.
    """

    calls: int = 0
    rows: int = 0
    positions: int = 0
    refreshes: int = 0

    def add(self, tokens: Tensor, positions: int | None = None) -> None:
        """Count one call of the model on `tokens` (N, W), all computed, or `positions` a layer."""
        self.calls += 1
        self.rows += tokens.shape[0]
        self.positions += tokens.numel() if positions is None else positions


@dataclass
class Cost:
    """Model calls, rows and positions over all of them, refreshes, and the time that they took."""

    calls: int = 0
    rows: float = 0
    positions: float = 0
    refreshes: float = 0
    seconds: float = 0

    def add(self, other: Cost, share: float = 1) -> None:
        """Add all calls of another cost, and a share of the rest."""
        self.calls += other.calls
        self.rows += other.rows * share
        self.positions += other.positions * share
        self.refreshes += other.refreshes * share
        self.seconds += other.seconds * share

    def stats(self, new_tokens: int, nfe: int) -> dict[str, float]:
        return {
            "nfe": self.calls,
            "forward_rows": self.rows,
            "forward_positions": self.positions,
            "new_tokens": new_tokens,
            "seconds": self.seconds,
            "tokens_per_forward": new_tokens / max(nfe, 1),
            "tokens_per_second": new_tokens / self.seconds if self.seconds else 0.0,
        }


class Forward(Protocol):
    """What the loop calls, once a step; `work` counts what it cost.

    A policy that keeps something refreshes where a block is full, and is refused to a sampler whose
    window slides, unless it has an attribute `slides`: True where it follows such windows only,
    None where it needs no refresh. One with an attribute `gaps` that is True may be asked for
    positions with gaps between them, so that it computes no logits that nobody reads. One with
    `guides` False goes by what it computed, and is refused with guidance, of two halves.

    Args:
        rows: the canvas, N rows in flight. A row whose block is full (`rows.block_full`) asks for
            its next block: where a cache refreshes. Only rows of branch 0 may write to a store, and
            a store goes by `rows.row`: rows are drafted, picked and dropped between calls. A row
            whose `rows.nfe` is 0 is a new one, and what its place held was another's.
        wanted: the positions whose logits will be read.

    Returns:
        Logits (N, W, V), floating-point, and the positions that they are for: those wanted, or the
        part of them that was computed. Logits at position i speak for position i, whatever the
        model's shift.
    """

    work: Work

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]: ...


class Headed:
    """A forward that ends in its model's head, which makes logits of any columns of its states.

    A subclass gives `states`. Logits of many positions are then made, and read, slice by slice,
    so that few are held at a time. One with a `__call__` of its own is asked for all at once.
    """

    model: Denoiser
    in_slices: bool = True

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        if "__call__" in vars(cls):
            cls.in_slices = False

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        hidden, positions = self.states(rows, wanted)
        return self.head(hidden), positions

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        """As a `Forward`, but of states (·, W, D), which `head` makes logits (N, W, V) of."""
        raise NotImplementedError

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of some columns of states."""
        return self.model.head(hidden)

    def slices(self, hidden: Tensor, positions: Positions) -> Iterator[tuple[Tensor, Positions]]:
        """States that `head` is to be given at a time, and their positions."""
        width, end = self.slice_width(hidden), positions.width
        if end <= width:
            yield hidden, positions
            return
        for first in range(0, end, width):
            part = positions.part(first, min(width, end - first))
            yield hidden[:, first : first + width], part

    def slice_width(self, hidden: Tensor) -> int:
        """How many columns these are."""
        size = len(hidden) * (self.model.vocab_size or 0) * hidden.element_size()
        return max(SLICE_BYTES // size, 1) if size else hidden.shape[1]


def headed(forward: Forward) -> Headed | None:
    """The forward, if its logits can be had in slices."""
    return forward if isinstance(forward, Headed) and forward.in_slices else None
