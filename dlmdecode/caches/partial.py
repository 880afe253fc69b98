"""What the caches start from that choose, step by step, which positions are computed anew."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches.base import gather_states, require_full_attention, require_hook, shifted
from dlmdecode.caches.groups import join
from dlmdecode.caches.store import Store, nothing
from dlmdecode.caches.view import keys, visible
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Headed, Work
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook

NEVER = -1  # in place of a token: nothing is kept of this position


class PartialCache(Headed):
    """Of each row the `chosen` positions are computed anew, the others are as they were last.

    A position whose token is another than the one that it was computed with is always among them:
    what was just committed, taken back or drafted, and what a suffix window begins to show. All
    are where a row is `due`. Drafts see their own keys and values and leave none behind.

    Raises `ValueError` for a model without a key/value hook, and for one whose attention is causal
    between blocks.
    """

    slides: bool | None = None

    def __init__(self, model: Denoiser, name: str):
        require_hook(model, name)
        require_full_attention(model, name)
        self.model, self.work, self.store = model, Work(), Store()
        self.known = nothing(2, torch.int64)  # (R, L) tokens as they were computed
        self.calls = nothing(1, torch.int64)  # (R,) forwards since the block was opened

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.begin(rows)
        seen, due = visible(rows, wanted), self.due(rows) & (rows.branch == 0)
        anew = self.chosen(rows, wanted, seen) | self.changed(rows)
        where = seen & (due[:, None] | anew)
        groups = [index.nonzero()[:, 0] for index in (due, ~due)]
        parts = [
            self.compute(rows.take(index), wanted.take(index), where[index], seen[index])
            for index in groups
            if len(index)
        ]
        own = rows.row[rows.branch == 0]
        self.calls[own] = self.calls[own] + 1
        return parts[0] if len(parts) == 1 else join(parts, torch.cat(groups).argsort())

    def begin(self, rows: Canvas) -> None:
        """Room for these rows; of new ones nothing is known yet."""
        self.store.fit(rows)
        self.known = self.store.room(self.known, rows, fill=NEVER)
        self.calls = self.store.room(self.calls, rows)
        self.known[rows.row[rows.nfe == 0]] = NEVER
        self.calls[rows.row[(rows.nfe == 0) | (rows.block_full & (rows.branch == 0))]] = 0

    def changed(self, rows: Canvas) -> Tensor:
        """Positions whose token is another than the one that they were computed with, (N, L)."""
        return rows.tokens != self.known[rows.row, : rows.tokens.shape[1]]

    def due(self, rows: Canvas) -> Tensor:
        """Rows that are computed as a whole, (N,) bool."""
        raise NotImplementedError

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        """Positions of the other rows that are computed anew, of those `seen`; both (N, L) bool."""
        raise NotImplementedError

    def speaking(self, where: Tensor) -> Tensor:
        """The positions whose states predict those `where`, both (N, L) bool."""
        if not self.model.shift:
            return where
        return F.pad(where[:, 1:], (0, 1)) | F.pad(where[:, :1], (0, where.shape[1] - 1))

    def compute(
        self, rows: Canvas, wanted: Positions, where: Tensor, seen: Tensor
    ) -> tuple[Tensor, Positions]:
        """States of the wanted positions that a forward over those `where` (N, L) bool gives.

        Each query sees those `seen` (N, L) bool.
        """
        query = Scattered(where)
        tokens = rows.tokens.gather(1, query.at)
        self.work.add(tokens)
        attend = self.model.attention(query.at, rows.position, keys(seen))
        hidden = self.model.encode(tokens, query.at, attend, self.hook(rows, wanted, query))
        own = rows.branch == 0
        row = rows.row[own]
        kept = self.known[row, : where.shape[1]]
        self.known[row, : where.shape[1]] = torch.where(where[own], rows.tokens[own], kept)
        return self.answer(rows, wanted, query, hidden)

    def hook(self, rows: Canvas, wanted: Positions, query: Scattered) -> KeyValueHook:
        """Puts the keys and values at `query` among those that are kept."""
        return self.store.mixing(rows, query.at, rows.tokens.shape[1])

    def answer(
        self, rows: Canvas, wanted: Positions, query: Scattered, hidden: Tensor
    ) -> tuple[Tensor, Positions]:
        """Of the states (N, W, D) at `query` those that speak for wanted positions."""
        before = (rows.position - self.model.shift).clamp(min=0)
        answered = Scattered(wanted.contains(rows.position) & query.contains(before))
        return gather_states(hidden, query.column(shifted(answered, self.model))), answered
