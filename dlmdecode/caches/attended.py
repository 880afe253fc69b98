"""What the caches start from that go by what a forward looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.partial import PartialCache
from dlmdecode.caches.store import nothing
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook, Watch


class Looks(Watch):
    """A cache's hook, which is shown what attends to what beside; see `Watch`."""

    def __init__(self, mix: KeyValueHook):
        self.mix = mix

    def __call__(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.mix(layer, keys, values)

    def mass(self) -> Tensor:
        """How much each position was looked at, (N, L) float32 ≥ 0."""
        raise NotImplementedError


class AttendedCache(PartialCache):
    """Keeps how much each position was looked at in a row's last forward.

    After a row's first forward nothing is computed as a whole. Raises `ValueError` as
    `PartialCache` does.
    """

    guides = False
    looks: Looks  # of the forward at work

    def __init__(self, model: Denoiser, name: str):
        super().__init__(model, name)
        self.mass = nothing(2, torch.float32)  # (R, L)

    def begin(self, rows: Canvas) -> None:
        super().begin(rows)
        self.mass = self.store.room(self.mass, rows)

    def due(self, rows: Canvas) -> Tensor:
        return rows.nfe == 0

    def looked_at(self, rows: Canvas, where: Tensor) -> Tensor:
        """How much that is, 0 but `where` (N, L) bool."""
        return self.mass[rows.row, : where.shape[1]].masked_fill(~where, 0)

    def looking(
        self, rows: Canvas, wanted: Positions, query: Scattered, mix: KeyValueHook
    ) -> Looks:
        """What is shown the attention of a forward over `query`."""
        raise NotImplementedError

    def hook(self, rows: Canvas, wanted: Positions, query: Scattered) -> KeyValueHook:
        self.looks = self.looking(rows, wanted, query, super().hook(rows, wanted, query))
        return self.looks

    def answer(
        self, rows: Canvas, wanted: Positions, query: Scattered, hidden: Tensor
    ) -> tuple[Tensor, Positions]:
        own = rows.branch == 0
        mass = self.looks.mass().to(hidden.device)[own]
        self.mass[rows.row[own], : mass.shape[1]] = mass
        return super().answer(rows, wanted, query, hidden)
