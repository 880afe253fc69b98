"""FreeDave's drafts side by side in one row: its "tree attention" under a cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.caches import BlockCache
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser
from dlmdecode.settings import Settings


class PackedDrafts(BlockCache):
    """The same cache, with the drafts of a sequence side by side in one row that reads it once.

    A draft sees the store outside the window, and its own copy of the window only.
    """

    def encode(self, rows: Canvas, window: Positions, query: Tensor) -> Tensor:
        if not (rows.branch > 0).any():
            return super().encode(rows, window, query)
        head = (rows.branch == 0).nonzero()[:, 0]  # the first row of each sequence
        group = (rows.branch == 0).long().cumsum(0) - 1
        num, depth, width = len(head), int(rows.branch.max()) + 1, query.shape[1]
        slot = group * depth + rows.branch  # where each draft stands among num * depth places

        def pack(value: Tensor, empty: int) -> Tensor:
            packed = value.new_full((num * depth, width), empty)
            return packed.index_copy(0, slot, value).view(num, depth * width)

        column, shift = torch.arange(width, device=slot.device), self.model.shift
        own = (column >= shift) & (column < window.count[:, None] + shift)
        own = pack(own.long(), 0).bool()
        draft = torch.arange(depth, device=slot.device).repeat_interleave(width)
        beside = own[:, None] & (draft[:, None] == draft)
        first, position = rows.take(head), rows.position[head]
        kept = self.shown(first) & ~window.take(head).contains(position)
        shown = torch.cat([kept[:, None].expand(-1, depth * width, -1), beside], 2)[:, None]
        packed = pack(query, 0)
        attend = self.model.attention(packed, torch.cat([position, packed], 1), shown)

        def extend(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            old = self.store.read(layer, rows.row[head], position.shape[1])
            return torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)

        tokens = pack(rows.tokens.gather(1, query), rows.eos_ids[0])
        self.work.add(tokens)
        hidden = self.model.encode(tokens, packed, attend, extend)
        return hidden.view(num * depth, width, -1)[slot]


@dataclass(frozen=True)
class DraftsInOneRow(Evaluation):
    """Drafts side by side in one row, under a cache whose keys and values they share."""

    sees_suffix = True

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        fix = "packed drafts share cached keys and values: set cache='prefix' or cache='dual'"
        require(settings.cache in ("prefix", "dual"), "draft_mode", "tree", fix)
        return PackedDrafts(model, dual=settings.cache == "dual")
