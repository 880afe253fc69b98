"""A sampler is a frozen recipe of parts. This is the page to read first.

Each slot answers one question, once per denoising step:

| slot | question | signature |
|---|---|---|
| `openings` | what stands on the canvas before the first step? | `(canvas) -> None` |
| `processors` | what do the logits say? | `(logits (N, W, V), rows, positions) -> logits` |
| `estimate` | how do logits become proposals? | `(logits, rows, positions, need) -> Proposed` |
| `scores` | how sure is each position? | `(confidence (B, L), canvas) -> confidence` |
| `select` | which positions of the open block to commit? | `(canvas) -> bool (B, L)` |
| `blocks` | how long is the block that starts at `canvas.lo`? | `(canvas) -> long (B,)` |
| `stops` | commit everything that is left, now? | `(canvas) -> bool (B,)` |
| `revisions` | what to take back after a commit? | `(canvas, committed (B, L))` |
| `verify` | which drafts to look at, and which one to keep? | `branch`, `pick` |
| `evaluate` | how do rows reach the model? (rarely set) | `(model, settings) -> Forward` |

Parts are immutable and hashable; what they must remember lives in `canvas.memory[self]`,
batch-first, so that it is drafted, picked and dropped with its row. Whatever changes how logits
are computed (caches, guidance, a model's shift) wraps the model instead and is invisible here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.canvas import BlockSchedule, Canvas, Positions, Span
from dlmdecode.decoding.forward import Forward
from dlmdecode.ops import Proposed

Choose = Callable[[Canvas], Tensor]


class Opening(Protocol):
    def __call__(self, canvas: Canvas) -> None: ...


class Processor(Protocol):
    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor: ...


class Estimator(Protocol):
    def __call__(
        self, logits: Tensor, rows: Canvas, positions: Positions, need: Tensor, **how: Any
    ) -> Proposed: ...


class Score(Protocol):
    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor: ...


class Selection(Protocol):
    def __call__(self, canvas: Canvas) -> Tensor: ...


class Stop(Protocol):
    def __call__(self, canvas: Canvas) -> Tensor: ...


class Revision(Protocol):
    def __call__(self, canvas: Canvas, committed: Tensor) -> None: ...


class Verification(Protocol):
    def branch(self, canvas: Canvas, choose: Choose) -> Canvas: ...

    def pick(self, rows: Canvas, choose: Choose) -> Canvas: ...


@dataclass(frozen=True)
class Trust:
    """No drafts: what the model proposes for a row is taken at its word."""

    gives_way = True

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        return canvas

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        return rows


@dataclass(frozen=True)
class TakeBest:
    """The best token of the distribution, or one drawn from it where there is a temperature."""

    gives_way = True

    def __call__(
        self, logits: Tensor, rows: Canvas, positions: Positions, need: Tensor, **how: Any
    ) -> Proposed:
        return ops.propose(logits.flatten(0, 1), need=need.flatten(), **how)


@dataclass(frozen=True)
class Sampler:
    """A decoding recipe. `None` or empty means: not this recipe's business (see `merge`).

    A part may carry these class attributes, all false by default: `gives_way` (any other part may
    take its slot), `reads_canvas` (it reads proposals outside the open block), `reads_committed`
    (it reads proposals at positions already written), `takes_back` (it re-masks tokens of the open
    block), `stateful` (what it does depends on earlier steps), and `conflicts` (names of parts it
    cannot work with, with the reason).

    Raises `ValueError` where parts cannot work together.
    """

    select: Selection | None = None
    blocks: BlockSchedule | None = None
    openings: tuple[Opening, ...] = ()
    processors: tuple[Processor, ...] = ()
    estimate: Estimator = TakeBest()
    scores: tuple[Score, ...] = ()
    stops: tuple[Stop, ...] = ()
    revisions: tuple[Revision, ...] = ()
    verify: Verification = Trust()
    evaluate: Callable[..., Forward] | None = None
    temperature: float = 0.0

    def __post_init__(self) -> None:
        names = {type(part).__name__ for part in self.parts}
        for part in self.parts:
            for other, reason in getattr(part, "conflicts", {}).items():
                if other in names:
                    raise ValueError(
                        f"{type(part).__name__} cannot be combined with {other}: {reason}"
                    )
            if hasattr(part, "check"):
                part.check(self)

    @property
    def parts(self) -> tuple[Any, ...]:
        """Every part, in the order in which a step runs them."""
        single = (self.estimate, self.select, self.blocks, self.verify, self.evaluate)
        many = (*self.openings, *self.processors, *self.scores, *self.stops, *self.revisions)
        return tuple(part for part in (*many, *single) if part is not None)

    def any_part(self, attribute: str) -> bool:
        return any(getattr(part, attribute, False) for part in self.parts)

    @property
    def reads_canvas(self) -> bool:
        return self.any_part("reads_canvas")

    @property
    def reads_committed(self) -> bool:
        return self.any_part("reads_committed")

    @property
    def lossless(self) -> bool:
        """Whether verification reproduces, token for token, the same recipe without it."""
        exact = getattr(self.verify, "lossless", True)
        return exact and (isinstance(self.verify, Trust) or not self.any_part("stateful"))

    def merge(self, other: Sampler) -> Sampler:
        """This recipe with the slots of `other` added; both filling a single slot is an error."""
        merged: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, tuple):
                merged[name] = mine + tuple(part for part in theirs if part not in mine)
            elif getattr(theirs, "gives_way", not theirs) or mine == theirs:
                merged[name] = mine or theirs
            elif getattr(mine, "gives_way", not mine):
                merged[name] = theirs
            else:
                raise ValueError(
                    f"two recipes both set {name!r}: {mine} and {theirs}; keep one of them"
                )
        return Sampler(**merged)

    def bind(self, model: Any) -> Sampler:
        """The recipe with parts that need to know the model (tokens of its vocabulary) resolved."""

        def bound(part):
            return part.bind(model) if hasattr(part, "bind") else part

        changed: dict[str, Any] = {
            f.name: tuple(map(bound, value)) if isinstance(value, tuple) else bound(value)
            for f in fields(self)
            if (value := getattr(self, f.name))
        }
        return replace(self, **changed)

    def choose(self, canvas: Canvas) -> Tensor:
        """What to commit in the open block, (B, L) bool; never nothing, so every loop ends."""
        confidence = canvas.proposal.prob
        for score in self.scores:
            confidence = score(confidence, canvas)
        canvas.confidence = confidence
        open = canvas.open
        where = self.select(canvas) & open  # type: ignore[misc]
        surest = confidence.masked_fill(~open, -torch.inf).argmax(1, keepdim=True)
        stuck = open.any(1) & ~where.any(1)
        return where | (torch.zeros_like(where).scatter(1, surest, True) & stuck[:, None])

    def propose(
        self,
        logits: Tensor,
        rows: Canvas,
        positions: Positions,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Turn logits (N, W, V) at `positions` into the rows' proposals there.

        Raises `FloatingPointError`, naming step and row, for NaN or infinite logits.
        """
        need = rows.text if self.reads_committed else rows.masked
        try:
            proposed = self.estimate(
                logits,
                rows,
                positions,
                need.gather(1, positions.at),
                exclude=rows.mask_id,
                temperature=self.temperature,
                stream=rows.stream[:, None].expand_as(positions.at).flatten(),
                position=positions.at.flatten(),
                dtype=dtype,
            )
            if proposed.token.device.type != "cpu":  # there the op itself does not wait to look
                ops.check(proposed)
        except ops.NoProposal as error:
            bad = error.rows[0] // positions.width
            raise FloatingPointError(
                f"step {int(rows.nfe[bad])}, row {int(rows.row[bad])}: the model's logits are NaN "
                "or infinite, or ban every token"
            ) from error
        rows.proposal.put(positions, need, proposed)
        rows.fresh = positions

    def wanted(self, rows: Canvas) -> Span:
        """The positions whose logits this recipe will read next."""
        if self.reads_canvas:
            return Span(rows.start, rows.stop)
        full = rows.block_full & (rows.branch == 0)
        ahead = torch.minimum(rows.hi + self.blocks.reach(rows), rows.stop)  # type: ignore[union-attr]
        return Span(torch.where(full, rows.hi, rows.lo), torch.where(full, ahead, rows.hi))
