"""What was committed when: one `Step` after every denoising step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from dlmdecode.decoding.canvas import Canvas, Trail
from dlmdecode.decoding.forward import Cost
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.proposal import Proposal


@dataclass(frozen=True)
class Step:
    """State of the batch after a step. B sequences, n of them still being written before it.

    Attributes:
        number: 1, 2, …
        sequences, before: (B, L) int64, the whole batch after the step and before it, masks
            included.
        rows: (n,) which sequences took part.
        changed: (n, L) bool, positions whose token this step changed.
        masked: (n, L) bool, positions still to be written.
        confidence: (n, L) float64, what the rule saw.
        start, stop: (n,) the text being written is [start, stop).
        lo, hi: (n,) the open block after the step.
        masks_left: (n,) how many positions are still to be written.
        held: (n,) bool, the open block is full and may still change.
        nfe: (n,) forwards of each row so far.
        proposal: what the model would write, and how sure it is, (n, L) each.
        fresh: positions whose proposal is of this step.
        trail: which part did what, see `dlmdecode.decoding.canvas.Trail`; rows are those of `rows`.
        cost: of the whole run so far, of a request of an engine its share.
        gaps: (n, L) int64, as in a `Canvas`: what is 0 in the text is given.
    """

    number: int
    sequences: Tensor
    before: Tensor
    rows: Tensor
    masked: Tensor
    confidence: Tensor
    start: Tensor
    stop: Tensor
    lo: Tensor
    hi: Tensor
    held: Tensor
    nfe: Tensor
    proposal: Proposal
    fresh: Positions
    trail: Trail
    cost: Cost
    gaps: Tensor | None = None

    @cached_property
    def changed(self) -> Tensor:
        return self.sequences[self.rows] != self.before[self.rows]

    @cached_property
    def length(self) -> Tensor:
        """(n,) positions of the text that are not given."""
        return self.stop - self.start if self.gaps is None else (self.gaps > 0).sum(1)

    @cached_property
    def masks_left(self) -> Tensor:
        return self.masked.sum(1)

    @classmethod
    def of(cls, number: int, canvas: Canvas, before: Tensor, sequences: Tensor, cost: Cost) -> Step:
        """A step that costs no operation: nobody may look at it."""
        return cls(
            number,
            sequences,
            before,
            canvas.row,
            canvas.masked,
            canvas.confidence,
            canvas.start,
            canvas.stop,
            canvas.lo,
            canvas.hi,
            canvas.held,
            canvas.nfe,
            canvas.proposal,
            canvas.fresh,
            canvas.trail,
            replace(cost),
            canvas.gaps,
        )


@dataclass
class Trace:
    """The steps of a decoding, in order, and the recipe that took them."""

    sampler: Any
    steps: list[Step] = field(default_factory=list)

    def append(self, step: Step) -> None:
        self.steps.append(step)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        return self.steps[index]

    def order(self, row: int = 0) -> list[int]:
        """The step at which each position of the canvas was last changed (0: never)."""
        last = [0] * self.steps[0].sequences.shape[1] if self.steps else []
        for step in self.steps:
            for index, sequence in enumerate(step.rows.tolist()):
                if sequence == row:
                    for position in step.changed[index].nonzero()[:, 0].tolist():
                        last[position] = step.number
        return last
