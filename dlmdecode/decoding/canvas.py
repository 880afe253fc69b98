"""The canvas: everything that changes while decoding, batch-first, one row per sequence.

Shapes: **B** sequences, **L** positions. A row is prompt, then text being written `[start, stop)`,
then padding. Its open block is `[lo, hi)`. Rows differ in all of these: a batch is ragged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.decoding.proposal import Proposal
from dlmdecode.ops import Row, Survey

WRITTEN = ("masked", "open", "block_full", "done", "survey", "seen")
FOLLOWS = {  # facts that each field decides
    "tokens": WRITTEN,
    "start": ("text", "text_span", *WRITTEN),
    "stop": ("text", "text_span", "rest_span", *WRITTEN),
    "lo": ("block", "block_span", "rest_span", *WRITTEN),
    "hi": ("block", "block_span", *WRITTEN),
    "row": ("survey", "seen"),
    "branch": ("survey", "seen"),
}


@dataclass
class Canvas:
    """The state of a batch being decoded. Parts read it; only the loop and revisions write it.

    What follows from the fields (`masked`, `open`, `seen`, …) is computed when it is first asked
    for, and kept until a field that decides it is assigned. So whoever changes a field assigns a
    new tensor to it, and never writes into the old one.
    """

    tokens: Tensor  # (B, L) int64
    start: Tensor  # (B,) the text being written is [start, stop)
    stop: Tensor
    lo: Tensor  # (B,) the open block is [lo, hi)
    hi: Tensor
    step: Tensor  # (B,) commits so far
    block_step: Tensor  # (B,) commits since the block was opened
    block_masks: Tensor  # (B,) masks in the block when it was opened
    nfe: Tensor  # (B,) forwards this row took part in
    row: Tensor  # (B,) which input sequence this row continues
    branch: Tensor  # (B,) 0 for the sequence itself, j for its j-th draft
    stream: Tensor  # (B,) int64 key of this sequence's noise: seed and prompt
    proposal: Proposal
    confidence: Tensor  # (B, L) float64, what rules rank and compare
    fresh: Positions  # those whose proposal the last forward computed
    mask_id: int
    eos_ids: tuple[int, ...]
    memory: dict[Hashable, Tensor] = field(default_factory=dict)  # what parts remember, batch-first

    @classmethod
    def of(
        cls,
        prompts: list[Tensor],
        length: int,
        mask_id: int,
        eos_ids: tuple[int, ...],
        stream: Tensor | None = None,
    ) -> Canvas:
        """Masks directly after each prompt, padding after the masks: no row's positions shift."""
        device = prompts[0].device
        start = torch.tensor([len(prompt) for prompt in prompts], device=device)
        tokens = torch.full((len(prompts), int(start.max()) + length), eos_ids[0], device=device)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
            row[len(prompt) : len(prompt) + length] = mask_id
        zero = torch.zeros_like(start)
        blank = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
        proposal = Proposal(torch.full_like(tokens, eos_ids[0]), blank.double(), blank, blank)
        return cls(
            tokens=tokens,
            start=start,
            stop=start + length,
            lo=start,
            hi=start,
            step=zero,
            block_step=zero,
            block_masks=zero,
            nfe=zero,
            row=torch.arange(len(prompts), device=device),
            branch=zero,
            stream=zero if stream is None else stream,
            proposal=proposal,
            confidence=proposal.prob,
            fresh=Span(start, start),
            mask_id=mask_id,
            eos_ids=eos_ids,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a field, and forget what followed from its old value."""
        known = self.__dict__
        facts = FOLLOWS.get(name, ())
        if name == "tokens" and name in known and value.shape != known[name].shape:
            facts = (*facts, "position", "text", "block")
        for fact in facts:
            known.pop(fact, None)
        known[name] = value

    @cached_property
    def position(self) -> Tensor:
        """0, 1, 2, … for each row, (B, L)."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)

    @cached_property
    def text(self) -> Tensor:
        """Positions of the text being written, (B, L) bool."""
        return Span(self.start, self.stop).contains(self.position)

    @cached_property
    def block(self) -> Tensor:
        """Positions of the open block, (B, L) bool."""
        return Span(self.lo, self.hi).contains(self.position)

    @cached_property
    def survey(self) -> Survey:
        bounds = (self.row, self.branch, self.start, self.stop, self.lo, self.hi)
        return ops.survey(self.tokens, self.proposal.token, *bounds, self.eos, self.mask_id)

    @cached_property
    def masked(self) -> Tensor:
        """Positions still to be written, (B, L) bool."""
        return self.survey.masked

    @cached_property
    def open(self) -> Tensor:
        """Positions of the open block still to be written, (B, L) bool."""
        return self.survey.open

    @cached_property
    def block_full(self) -> Tensor:
        """Rows whose open block has nothing left to write, (B,) bool."""
        return ~self.open.any(1)

    @cached_property
    def done(self) -> Tensor:
        """Rows with nothing left to write, (B,) bool."""
        return ~self.masked.any(1)

    @cached_property
    def seen(self) -> list[Row]:
        """What the host knows of each row: where a step waits for the device, once."""
        return [Row(*numbers) for numbers in self.survey.rows.tolist()]

    @cached_property
    def text_span(self) -> Span:
        """The text being written, as positions."""
        return Span(self.start, self.stop).of_width(row.stop - row.start for row in self.seen)

    @cached_property
    def block_span(self) -> Span:
        """The open block, as positions."""
        return Span(self.lo, self.hi).of_width(row.hi - row.lo for row in self.seen)

    @cached_property
    def rest_span(self) -> Span:
        """The open block and what is behind it, as positions."""
        return Span(self.lo, self.stop).of_width(row.stop - row.lo for row in self.seen)

    @cached_property
    def eos(self) -> Tensor:
        """The end tokens, (E,) int64."""
        return torch.tensor(self.eos_ids, device=self.tokens.device)

    def is_eos(self, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, self.eos)

    def copy(self) -> Canvas:
        """One that can be changed while this one stays: tensors are shared, none is written to."""
        other = copy(self)
        other.memory, other.proposal = dict(self.memory), copy(self.proposal)
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

    def commit(self, where: Tensor) -> None:
        """Write the proposals at `where` (B, L)."""
        self.tokens = torch.where(where, self.proposal.token, self.tokens)
        committed = where.any(1).long()
        self.step = self.step + committed
        self.block_step = self.block_step + committed

    def remask(self, where: Tensor) -> None:
        """Take back what stands at `where` (B, L)."""
        self.tokens = self.tokens.masked_fill(where, self.mask_id)

    def truncate(self, stop: Tensor) -> None:
        """End the text at `stop` (B,) where that is earlier; what lay behind becomes EOS."""
        beyond = (self.position >= stop[:, None]) & self.text
        self.tokens = self.tokens.masked_fill(beyond, self.eos_ids[0])
        self.stop = torch.minimum(self.stop, stop)
        self.hi = torch.minimum(self.hi, self.stop)

    def open_blocks(self, blocks: Callable[[Canvas], Tensor]) -> None:
        """Give every row whose block is full the next one that has something to write.

        `blocks` says how long the block that starts at `lo` is, (B,) int64.
        """
        while any(row.full and not row.done for row in self.seen):
            full = self.block_full & ~self.done
            self.lo = torch.where(full, self.hi, self.lo)
            self.hi = torch.where(full, self.lo + blocks(self), self.hi).minimum(self.stop)
            self.block_step = self.block_step.masked_fill(full, 0)
            self.block_masks = torch.where(full, self.open.sum(1), self.block_masks)
