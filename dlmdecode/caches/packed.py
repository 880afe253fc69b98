"""The drafts of a sequence as one row that shares its cached keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.canvas import Canvas, Span


class PackedDrafts(BlockCache):
    """The same cache, with the drafts of a sequence side by side in one row that reads it once.

    A draft sees the store outside the window, and its own copy of the window only.
    """

    def encode(self, rows: Canvas, window: Span, query: Span) -> Tensor:
        if not (rows.branch > 0).any():
            return super().encode(rows, window, query)
        head = (rows.branch == 0).nonzero()[:, 0]  # the first row of each sequence
        group = (rows.branch == 0).long().cumsum(0) - 1
        num, depth, width = len(head), int(rows.branch.max()) + 1, query.width
        slot = group * depth + rows.branch  # where each draft stands among num * depth places

        def pack(value: Tensor, empty: int) -> Tensor:
            packed = value.new_full((num * depth, width), empty)
            return packed.index_copy(0, slot, value).view(num, depth * width)

        column = torch.arange(width, device=slot.device)
        own = (column >= self.model.shift) & (column < (query.hi - query.lo)[:, None])
        own = pack(own.long(), 0).bool()
        draft = torch.arange(depth, device=slot.device).repeat_interleave(width)
        beside = own[:, None] & (draft[:, None] == draft)
        position, first = rows.position[head], Span(window.lo[head], window.hi[head])
        kept = (position < rows.stop[head][:, None]) & ~first.contains(position)
        attend = torch.cat([kept[:, None].expand(-1, depth * width, -1), beside], 2)[:, None]

        def extend(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            old = [one[rows.row[head]] for one in self.store[layer]]
            return torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)

        tokens = pack(rows.tokens.gather(1, query.at), rows.eos_ids[0])
        self.work.add(tokens)
        hidden = self.model.encode(tokens, pack(query.at, 0), attend, extend)
        return hidden.view(num * depth, width, -1)[slot]
