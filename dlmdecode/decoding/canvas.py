"""The canvas: everything that changes while decoding, batch-first, one row per sequence.

Shapes: **B** sequences, **L** positions. A row is prompt, then text being written `[start, stop)`,
then padding. Its open block is `[lo, hi)`. Rows differ in all of these: a batch is ragged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.ops import Proposed


@dataclass
class Proposal:
    """What the model would write at each position and how sure it is; all (B, L).

    A forward overwrites the entries it computed, the others keep their last value.
    """

    token: Tensor  # int64, the best token (or the sampled one)
    prob: Tensor  # float64, its probability
    margin: Tensor  # float32, logit gap between best and second best
    entropy: Tensor  # float32, nats

    def take(self, index: Tensor) -> Proposal:
        """Rows `index`, repeats allowed."""
        return Proposal(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, positions: Positions, need: Tensor, new: Proposed) -> None:
        """Overwrite `positions` where `need` (B, L); `new` holds (B, positions.width) values."""
        every = torch.arange(need.shape[1], device=need.device).expand_as(need)
        index, where = positions.column(every), need & positions.contains(every)
        values = (new.token, new.log_prob.double().exp(), new.margin, new.entropy)
        for mine, value in zip(fields(self), values, strict=True):
            old = getattr(self, mine.name)
            fresh = value.view(len(need), -1).gather(1, index).to(old.dtype)
            setattr(self, mine.name, torch.where(where, fresh, old))


@dataclass
class Canvas:
    """The state of a batch being decoded. Parts read it; only the loop and revisions write it."""

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
    suffix: int | None = None  # masks behind the open block that the model sees; None is all
    suffix_tail: int = 0  # and at the end of the text

    @classmethod
    def of(
        cls,
        prompts: list[Tensor],
        length: int,
        mask_id: int,
        eos_ids: tuple[int, ...],
        stream: Tensor | None = None,
        suffix: int | None = None,
        suffix_tail: int = 0,
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
            suffix=suffix,
            suffix_tail=suffix_tail,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def position(self) -> Tensor:
        """0, 1, 2, … for each row, (B, L)."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)

    @property
    def text(self) -> Tensor:
        """Positions of the text being written, (B, L) bool."""
        return Span(self.start, self.stop).contains(self.position)

    @property
    def masked(self) -> Tensor:
        """Positions still to be written, (B, L) bool."""
        return (self.tokens == self.mask_id) & self.text

    @property
    def block(self) -> Tensor:
        """Positions of the open block, (B, L) bool."""
        return Span(self.lo, self.hi).contains(self.position)

    @property
    def open(self) -> Tensor:
        """Positions of the open block still to be written, (B, L) bool."""
        return self.masked & self.block

    @property
    def block_full(self) -> Tensor:
        """Rows whose open block has nothing left to write, (B,) bool."""
        return ~self.open.any(1)

    @property
    def done(self) -> Tensor:
        """Rows with nothing left to write, (B,) bool."""
        return ~self.masked.any(1)

    def is_eos(self, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, torch.tensor(self.eos_ids, device=tokens.device))

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

    def slide(self, blocks: Callable[[Canvas], Tensor]) -> None:
        """Open a block at every row's first mask; `blocks` says how long it is, (B,) int64."""
        self.lo = torch.where(self.done, self.lo, self.masked.int().argmax(1))
        self.hi = (self.lo + blocks(self)).minimum(self.stop)
        self.block_masks = self.open.sum(1)

    def open_blocks(self, blocks: Callable[[Canvas], Tensor]) -> None:
        """Give every row whose block is full the next one that has something to write.

        `blocks` says how long the block that starts at `lo` is, (B,) int64.
        """
        while (full := self.block_full & ~self.done).any():
            self.lo = torch.where(full, self.hi, self.lo)
            self.hi = torch.where(full, self.lo + blocks(self), self.hi).minimum(self.stop)
            self.block_step = self.block_step.masked_fill(full, 0)
            self.block_masks = torch.where(full, self.open.sum(1), self.block_masks)
