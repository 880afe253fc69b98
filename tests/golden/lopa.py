"""Recorded runs of LoPA: branches of a text to which blocks are appended, on this library's loop.

Several blocks are open at once, and a branch sees those that it has itself. The table in
docs/golden.md lists what differs from the sampler `lopa`, with the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Work
from dlmdecode.decoding.parts import Choose, Opening, Revision, Selection
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import WholeCanvas
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.samplers.lopa import SurestBranch

SCORES: dict[str, tuple[Any, ...]] = {
    "default": (),
    "margin": (Margin(),),
    "neg_entropy": (NegativeEntropy(),),
}


def block_of(canvas: Canvas, length: int) -> Tensor:
    """The number of each position's block, (B, L); the prompt is block 0."""
    offset = canvas.position - canvas.start[:, None]
    return torch.where(offset < 0, 0, offset.div(length, rounding_mode="floor") + 1)


class NothingYet(Opening):
    """A text has no block at first."""

    def __call__(self, canvas: Canvas) -> None:
        canvas.stop = canvas.hi = canvas.start


@dataclass(frozen=True)
class AppendingBranches(SurestBranch):
    """As many drafts as are asked for beside the row itself, none for a single one, a draft that
    fills its block among them, and the row twice where nothing is left. Each of them appends a
    block to itself."""

    length: int = 32
    share: float = 0.1  # of the last block that is written before the next one is appended

    def drafts(self, canvas: Canvas) -> Tensor:
        few = canvas.open.sum(1).clamp(1, self.branches)
        return few.masked_fill((canvas.nfe == 0) | (self.branches == 1), 0)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = super().branch(canvas, choose)
        last = rows.masked & (rows.position >= (rows.stop - self.length)[:, None])
        written = 1 - last.sum(1) / self.length
        grows = may_grow(rows) & (written >= self.share)
        rows.stop = rows.stop + self.length * grows
        rows.hi = rows.stop
        return rows


def may_grow(rows: Canvas) -> Tensor:
    """Rows that hold no EOS and have room for a block, (N,) bool."""
    return ~(rows.is_eos(rows.tokens) & rows.text).any(1) & (rows.stop < rows.limit)


@dataclass(frozen=True)
class InEveryBlock(Selection):
    """Above the threshold in every block; the most confident one where none is, in blocks behind
    one that was written to a share of `ready` before the step."""

    reads_canvas = True
    threshold: float
    ready: float
    length: int

    def __call__(self, canvas: Canvas) -> Tensor:
        where, block = torch.zeros_like(canvas.open), block_of(canvas, self.length)
        before = torch.zeros_like(canvas.open)
        for number in range(1, int(block.max()) + 1):
            open = canvas.open & (block == number)
            sure = open & (canvas.proposal.prob > self.threshold)
            best = canvas.confidence.masked_fill(~open, -torch.inf).argmax(1, keepdim=True)
            one = torch.zeros_like(open).scatter(1, best, True) & open
            ready = 1 - before.sum(1, keepdim=True) / self.length >= self.ready
            where = where | torch.where(sure.any(1, keepdim=True), sure, one & ready)
            before = open
        return where


class UntilNothingIsAppended(Revision):
    """A full text goes on while another block can be appended to it."""

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        canvas.held = may_grow(canvas)


class BranchByBranch:
    """A call for each branch of a text, behind the blocks that were full before the last step.

    Of those the branch that was kept leaves its keys and values, and the logits of its last one.
    """

    def __init__(self, model: Any, length: int, full_attention: bool):
        self.model, self.length, self.full_attention = model, length, full_attention
        self.work, self.kept = Work(), 0
        self.states: dict[int, list[tuple[Tensor, Tensor]]] = {}  # of each branch, by layer
        self.logits: dict[int, Tensor] = {}

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        won = int(rows.memory[self][0]) if self.states else 0
        states = [(k[:, :, : self.kept], v[:, :, : self.kept]) for k, v in self.states.get(won, [])]
        behind = self.logits[won][:, : self.kept] if self.states else None
        rows.memory[self] = rows.branch
        self.states, self.logits = {}, {}
        for n in range(len(rows)):
            self.compute(rows.take(torch.tensor([n])), states, behind)
        self.kept = self.finished(rows)
        longest = max(each.shape[1] for each in self.logits.values())
        every = [self.logits[branch] for branch in rows.branch.tolist()]
        padded = [
            torch.cat([e, e.new_zeros(1, longest - e.shape[1], e.shape[2])], 1) for e in every
        ]
        index = (wanted.at - 1)[..., None].expand(-1, -1, padded[0].shape[2])
        return torch.cat(padded).gather(1, index), wanted

    def finished(self, rows: Canvas) -> int:
        """Positions of the prompt and the leading full blocks of the text itself."""
        own = rows.take((rows.branch == 0).nonzero()[:, 0])
        start, stop = int(own.start), int(own.stop)
        first = int(own.masked.int().argmax(1)) if own.masked.any() else stop
        return start + (first - start) // self.length * self.length

    def compute(
        self, row: Canvas, states: list[tuple[Tensor, Tensor]], behind: Tensor | None
    ) -> None:
        """Logits (1, stop, V) of one row, those of what is kept among them."""
        kept, stop = self.kept, int(row.stop)
        window = row.position[:, kept:stop]
        self.work.add(row.tokens[:, kept:stop])
        own: list[tuple[Tensor, Tensor]] = []

        def hook(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if kept:
                k, v = (torch.cat(pair, 2) for pair in zip(states[layer], (k, v), strict=True))
            own.append((k, v))
            return k, v

        block = block_of(row, self.length)
        causal = block[:, None, kept:stop, None] >= block[:, None, None, :stop]
        attend = None if self.full_attention else causal
        new = self.model.head(self.model.encode(row.tokens[:, kept:stop], window, attend, hook))
        branch = int(row.branch)
        self.states[branch] = own
        self.logits[branch] = new if behind is None else torch.cat([behind, new], 1)


@method("lopa")
def lopa(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length = params["block_size"]
    drafts = AppendingBranches(
        branches=params["branching_factor"],
        weight=params["selection_conf_alpha"],
        worst=params["branch_topp"],
        length=length,
        share=params["block_add_threshold"],
    )
    recipe = Sampler(
        openings=(NothingYet(),),
        select=InEveryBlock(params["skip_threshold"], params["decoded_token_threshold"], length),
        blocks=WholeCanvas(),
        scores=SCORES[params["sampling_strategy"]],
        revisions=(UntilNothingIsAppended(),),
        verify=drafts,
    )
    return Setup(
        recipe,
        params["max_new_tokens"] // length * length,
        leaf=lambda model: BranchByBranch(model, length, params["use_full_attention"]),
        cut=True,
    )
