"""A forward: how the rows of a canvas reach the model. Caches and guidance are forwards.

Rules never notice which one is at work: a forward returns logits of the positions it computed and
says which these are, and the proposals elsewhere keep their last value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions


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
