"""The canvas: everything that changes while decoding, batch-first, one row per sequence.

Shapes: **B** sequences, **L** positions. A row is prompt, then text being written `[start, stop)`,
then padding. Its open block is `[lo, hi)`. Rows differ in all of these: a batch is ragged. Where
there are gaps, the text is what lies in them, and the rest of `[start, stop)` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.decoding.facts import Facts
from dlmdecode.decoding.positions import Positions, Scattered, Span, join_positions, stack
from dlmdecode.decoding.proposal import Proposal

Trail = list[tuple[Any, Tensor]]
"""Who did what in a step, in order: a part, or None for the loop, and either tokens (B, L) int64
after it, or positions (B, L) bool that it wants committed beside those of the parts before."""


@dataclass
class Canvas(Facts):
    """The state of a batch being decoded. Parts read it; only the loop and revisions write it.

    What follows from the fields (`masked`, `open`, `seen`, …: see `Facts`) is computed when it is
    first asked for, and kept until a field that decides it is assigned. So whoever changes a field
    assigns a new tensor to it, and never writes into the old one.
    """

    tokens: Tensor  # (B, L) int64
    start: Tensor  # (B,) the text being written is [start, stop)
    stop: Tensor
    limit: Tensor  # (B,) where `stop` can be at most
    lo: Tensor  # (B,) the open block is [lo, hi)
    hi: Tensor
    step: Tensor  # (B,) commits so far
    block_step: Tensor  # (B,) commits since the block was opened
    block_masks: Tensor  # (B,) masks in the block when it was opened
    nfe: Tensor  # (B,) forwards this row took part in
    row: Tensor  # (B,) which place of the batch this row has: where a store keeps what is its own
    branch: Tensor  # (B,) 0 for the sequence itself, j for its j-th draft
    held: Tensor  # (B,) bool, a revision wants another forward of the open block, full or not
    stream: Tensor  # (B,) int64 key of this sequence's noise: seed and prompt
    proposal: Proposal
    confidence: Tensor  # (B, L) float64, what rules rank and compare
    fresh: Positions  # those whose proposal the last forward computed
    mask_id: int
    eos_ids: tuple[int, ...]
    memory: dict[Hashable, Tensor] = field(default_factory=dict)  # what parts remember, batch-first
    suffix: int | None = None  # masks behind the open block that the model sees; None is all
    suffix_tail: int = 0  # and at the end of the text
    gaps: Tensor | None = None  # (B, L) int64, 1, 2, … in a row's gaps, 0 elsewhere; None: no gaps
    trail: Trail = field(default_factory=list)  # of the step that gave this canvas, and its rows

    @classmethod
    def of(
        cls,
        prompts: list[Tensor],
        length: int | Sequence[int],
        mask_id: int,
        eos_ids: tuple[int, ...],
        stream: Tensor | None = None,
        suffix: int | None = None,
        suffix_tail: int = 0,
    ) -> Canvas:
        """Masks directly after each prompt, padding after the masks: no row's positions shift.

        `length` is the number of masks, of every row or of each.
        """
        device = prompts[0].device
        starts = [len(prompt) for prompt in prompts]
        lengths = [length] * len(prompts) if isinstance(length, int) else length
        stops = [a + n for a, n in zip(starts, lengths, strict=True)]
        start, stop = torch.tensor([starts, stops], device=device)
        tokens = torch.full((len(prompts), max(stops)), eos_ids[0], device=device)
        for row, prompt, end in zip(tokens, prompts, stops, strict=True):
            row[: len(prompt)] = prompt
            row[len(prompt) : end] = mask_id
        zero = torch.zeros_like(start)
        blank = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
        proposal = Proposal(torch.full_like(tokens, eos_ids[0]), blank.double(), blank, blank)
        return cls(
            tokens=tokens,
            start=start,
            stop=stop,
            limit=stop,
            lo=start,
            hi=start,
            step=zero,
            block_step=zero,
            block_masks=zero,
            nfe=zero,
            row=torch.arange(len(prompts), device=device),
            branch=zero,
            held=zero.bool(),
            stream=zero if stream is None else stream,
            proposal=proposal,
            confidence=proposal.prob,
            fresh=Span(start, start),
            mask_id=mask_id,
            eos_ids=eos_ids,
            suffix=suffix,
            suffix_tail=suffix_tail,
        )

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def copy(self) -> Canvas:
        """One that can be changed while this one stays: tensors are shared, none is written to."""
        other = object.__new__(type(self))  # what is known of the fields goes along
        other.__dict__.update(self.__dict__, memory=dict(self.memory))
        other.proposal = Proposal(**vars(self.proposal))
        return other

    def take(self, index: Tensor) -> Canvas:
        """Rows `index` in that order, repeats allowed: drafting, picking and dropping rows."""

        def pick(value):
            if isinstance(value, Tensor):
                return value[index]
            if isinstance(value, Proposal | Span | Scattered):
                return value.take(index)
            if isinstance(value, dict):
                return {key: kept[index] for key, kept in value.items()}
            return value

        return replace(self, **{f.name: pick(getattr(self, f.name)) for f in fields(self)})

    def resize(self, length: int) -> Canvas:
        """The same rows with `length` positions: the last ones left out, or padding behind them."""
        old = self.tokens.shape[1]
        if length == old:
            return self

        def fit(value: Any, fill: int = 0) -> Any:
            if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == old:
                return F.pad(value, (0, 0) * (value.dim() - 2) + (0, length - old), value=fill)
            if isinstance(value, Proposal):
                return Proposal(*(fit(getattr(value, f.name)) for f in fields(value)))
            if isinstance(value, Scattered):
                return Scattered(fit(value.where))
            return {key: fit(kept) for key, kept in value.items()} if type(value) is dict else value

        resized = {f.name: fit(getattr(self, f.name)) for f in fields(self)}
        return replace(self, **resized | {"tokens": fit(self.tokens, self.eos_ids[0])})

    @classmethod
    def join(cls, parts: Sequence[Canvas]) -> Canvas:
        """The rows of several, in the order of `row`, as long as the longest text can be.

        What a part remembers of some rows only is zero for the others.
        """
        length = max(int(part.limit.max()) for part in parts)
        parts = [part.resize(length) for part in parts]

        def cat(values: list[Any]) -> Any:
            first = values[0]
            if isinstance(first, Tensor):
                return stack(values)
            if isinstance(first, Proposal):
                return Proposal(*(cat([getattr(v, f.name) for v in values]) for f in fields(first)))
            if isinstance(first, Span | Scattered):
                return join_positions(values, length)
            return first

        joined = {f.name: cat([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        known = {key: kept for part in parts for key, kept in part.memory.items()}
        joined["memory"] = {
            key: stack([p.memory.get(key, like.new_zeros(len(p), *like.shape[1:])) for p in parts])
            for key, like in known.items()
        }
        whole = replace(parts[0], **joined)
        return whole.take(whole.row.argsort())

    def recall(self, key: Hashable, *blank: Tensor) -> list[Tensor]:
        """What `keep` put under `key`, or `blank`, each (B,): numbers of rows, not of positions."""
        return [self.memory.get((key, i), value) for i, value in enumerate(blank)]

    def keep(self, key: Hashable, *values: Tensor) -> None:
        """Remember `values`, each (B,), for `recall`."""
        self.memory |= {(key, i): value for i, value in enumerate(values)}

    def commit(self, where: Tensor) -> None:
        """Write the proposals at `where` (B, L)."""
        self.tokens = torch.where(where, self.proposal.token, self.tokens)
        committed = where.any(1)
        self.step = self.step + committed
        self.block_step = self.block_step + committed

    def remask(self, where: Tensor) -> None:
        """Take back what stands at `where` (B, L)."""
        self.tokens = self.tokens.masked_fill(where, self.mask_id)

    def truncate(self, stop: Tensor) -> None:
        """End the text, or the gap there, at `stop` (B,) if that is earlier; EOS fills the rest."""
        beyond = (self.position >= stop[:, None]) & self.text
        if self.gaps is not None:
            own = self.gaps.gather(1, (stop - 1)[:, None])
            beyond, stop = beyond & (self.gaps == own), self.stop
        self.tokens = self.tokens.masked_fill(beyond, self.eos_ids[0])
        self.stop = torch.minimum(self.stop, stop)
        self.hi = torch.minimum(self.hi, self.stop)

    def slide(self, blocks: Callable[[Canvas], Tensor]) -> None:
        """Open a block at every row's first mask; `blocks` says how long it is, (B,) int64."""
        writes = self.masked.any(1)
        self.lo = torch.where(writes, self.masked.int().argmax(1), self.lo)
        hi = self.ahead(self.lo, blocks(self)).minimum(self.stop)
        self.hi = torch.where(writes, hi, self.hi)
        self.block_masks = self.open.sum(1)

    def grow(self, count: Tensor) -> None:
        """Put `count` (B,) masks behind the text, where the canvas has room for them."""
        new = Span(self.stop, self.stop + count).contains(self.position)
        self.tokens = self.tokens.masked_fill(new, self.mask_id)
        self.stop = self.stop + count

    def insert(self, at: Tensor, count: Tensor, most: Tensor) -> None:
        """Put `count` (B,) masks at position `at` (B,); what stands from there on moves right.

        What parts remember of positions, and the proposals, move along. What would stand behind
        `most` (B,) is lost.
        """
        here, num = at[:, None], count[:, None]
        source = torch.where(
            self.position < here + num, self.position.minimum(here), self.position - num
        )

        def move(value: Any) -> Any:
            if isinstance(value, Proposal):
                return Proposal(*(move(getattr(value, f.name)) for f in fields(value)))
            if value.dim() < 2 or value.shape[1] != source.shape[1]:
                return value
            index = source.view(*source.shape, *(1,) * (value.dim() - 2)).expand_as(value)
            return value.gather(1, index)

        self.stop = torch.minimum(self.stop + count, most)
        tokens = move(self.tokens).masked_fill(
            Span(at, at + count).contains(self.position), self.mask_id
        )
        self.tokens = torch.where(self.position < self.stop[:, None], tokens, self.eos_ids[0])
        self.proposal, self.confidence = move(self.proposal), move(self.confidence)
        self.memory = {key: move(kept) for key, kept in self.memory.items()}

    def open_blocks(self, blocks: Callable[[Canvas], Tensor]) -> None:
        """Give every row whose block is full the next one that has something to write.

        `blocks` says how long the block that starts at `lo` is, (B,) int64.
        """
        while any(row.full and not row.done for row in self.seen):
            full = self.block_full & ~self.done
            self.lo = torch.where(full, self.hi, self.lo)
            hi = self.ahead(self.lo, blocks(self))
            self.hi = torch.where(full, hi, self.hi).minimum(self.stop)
            self.block_step = self.block_step.masked_fill(full, 0)
            self.block_masks = torch.where(full, self.open.sum(1), self.block_masks)
