"""Where caches keep keys and values: one place for each row in flight, used again by the next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.models.protocol import KeyValueHook


def nothing(dims: int, dtype: torch.dtype) -> Tensor:
    """What no row has yet, (0,) or (0, 0), whatever torch's defaults are; see `Store.room`."""
    return torch.empty((0,) * dims, dtype=dtype, device="cpu")


class Store:
    """Keys and values of each layer, both (R, H, L, D/H), by `rows.row`.

    Both are kept in the keys' dtype: under autocast the values may have another.

    Each layer's are on the layer's own device. It grows to the most places that were needed
    and the longest canvas, then by a quarter at least: rows that come later are often longer.
    """

    def __init__(self) -> None:
        self.num_rows, self.length = 0, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def fit(self, rows: Canvas) -> None:
        """Make room for these rows, in the layers that are asked for from now on."""
        self.num_rows = max(self.num_rows, int(rows.row.max()) + 1)
        width = rows.tokens.shape[1]
        if width > self.length:
            self.length = max(width, self.length * 5 // 4)

    def room(self, kept: Tensor, rows: Canvas, fill: int = 0) -> Tensor:
        """`kept` (R,) or (R, L) with room for as many rows and positions as the store has."""
        sizes = (self.num_rows, self.length)[: kept.dim()]
        more = [size - old for size, old in zip(sizes, kept.shape, strict=True)]
        if not any(more):
            return kept
        pad = [n for one in reversed(more) for n in (0, one)]
        return F.pad(kept.to(rows.tokens.device), pad, value=fill)

    def of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, to be written to; the first time, of the kind of `like`."""
        shape = (self.num_rows, like.shape[1], self.length, like.shape[3])
        kept = self.layers.get(layer)
        if kept is None or kept[0].shape != shape:
            grown = like.new_zeros(shape), like.new_zeros(shape)
            for old, new in zip(kept or (), grown, strict=False):
                new[: old.shape[0], :, : old.shape[2]] = old
            self.layers[layer] = kept = grown
        return kept

    def read(self, layer: int, row: Tensor, length: int) -> list[Tensor]:
        """Copies of what the rows `row` (N,) keep of the first `length` positions."""
        return [kept[row.to(kept.device), :, :length] for kept in self.layers[layer]]

    def put(self, layer: int, row: Tensor, at: Tensor, k: Tensor, v: Tensor) -> None:
        """Keep of the rows `row` (N,) these keys and values (N, H, W, D/H), at `at` (N, W)."""
        row, at = row.to(k.device)[:, None], at.to(k.device)
        for kept, new in zip(self.of(layer, k), (k, v.to(k.dtype)), strict=True):
            kept[row, :, at] = new.transpose(1, 2)

    def beside(self, rows: Canvas, fresh: Tensor, length: int, skip: int) -> KeyValueHook:
        """Puts keys and values at `fresh` (N, W) among the kept ones, which stay where not `fresh`.

        The hook gives the first `length`; of what it is given it leaves out the first `skip`.
        """
        drafts = any(row.branch for row in rows.seen)
        whole = not drafts and len(rows) == self.num_rows

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            index = fresh.to(k.device)[:, None, :, None]
            index = index.expand(-1, k.shape[1], -1, k.shape[3])
            if whole:  # rows stand in order: what they keep need not be copied
                kept = [old[:, :, :length] for old in self.of(layer, k)]
            else:
                kept = self.read(layer, rows.row, length)
            new = (k[:, :, skip:], v[:, :, skip:].to(k.dtype))
            k, v = (old.scatter_(2, index, one) for old, one in zip(kept, new, strict=True))
            return k, v

        return hook

    def mixing(self, rows: Canvas, fresh: Tensor, length: int) -> KeyValueHook:
        """Puts keys and values at `fresh` (N, W) among the kept ones; gives the first `length`.

        Those of branch 0 are kept from then on.
        """
        own = rows.branch == 0

        def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            at, row, mine = (one.to(k.device) for one in (fresh, rows.row, own))
            index = at[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
            mixed = []
            for kept, new in zip(self.of(layer, k), (k, v.to(k.dtype)), strict=True):
                every = kept[row, :, :length].scatter_(2, index, new)
                kept[row[mine], :, :length] = every[mine]
                mixed.append(every)
            return mixed[0], mixed[1]

        return mix
