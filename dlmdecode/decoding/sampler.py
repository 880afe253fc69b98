"""A sampler is a frozen recipe of parts. This is the page to read first.

Each slot answers one question, once per denoising step:

| slot | question | signature |
|---|---|---|
| `openings` | what stands on the canvas before the first step? | `(canvas) -> None` |
| `processors` | what do the logits say? | `(logits (N, W, V), rows, positions) -> logits` |
| `estimate` | how do logits become proposals? | `(logits, rows, positions, need) -> Proposed` |
| `scores` | how sure is each position? | `(confidence (B, L), canvas) -> confidence` |
| `select` | which positions of the open block to commit? | `(canvas) -> bool (B, L)` |
| `blocks` | how long is the block that starts at `canvas.lo`? | `(canvas) -> long (B,)`, `reach` |
| `stops` | commit everything that is left, now? | `(canvas) -> bool (B,)` |
| `revisions` | what to take back after a commit? | `(canvas, committed (B, L))` |
| `verify` | which drafts to look at, and which one to keep? | `branch`, `pick` |
| `evaluate` | how do rows reach the model? (rarely set) | `(model, settings) -> Forward` |

`parts.py` has the class that a part of each slot derives from. Parts are immutable and hashable;
what they must remember lives in `canvas.memory[self]`, batch-first, so that it is drafted, picked
and dropped with its row; a row that joins others reads zeros there, which must mean nothing
remembered. Whatever changes how logits are computed (caches, guidance, a model's
shift) wraps the model instead and is invisible here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise, permutations
from typing import Any

from dlmdecode.checks import Between, number, refuse, require, whole
from dlmdecode.decoding.parts import (
    BlockSchedule,
    Estimator,
    Evaluation,
    Opening,
    Part,
    Processor,
    Revision,
    Score,
    Selection,
    Stop,
    TakeBest,
    Trust,
    Verification,
)

ONE: dict[str, type] = {
    "estimate": Estimator,
    "select": Selection,
    "blocks": BlockSchedule,
    "verify": Verification,
    "evaluate": Evaluation,
}
MANY: dict[str, type] = {
    "openings": Opening,
    "processors": Processor,
    "scores": Score,
    "stops": Stop,
    "revisions": Revision,
}


@dataclass(frozen=True)
class Sampler:
    """A decoding recipe. `None` or empty means: not this recipe's business (see `merge`).

    Raises `ValueError` for what is no part of its slot, and where parts cannot work together.
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
    evaluate: Evaluation | None = None
    temperature: float = 0.0
    min_tokens_per_step: int = 0  # what `select` names less is made up for; 0 is 1

    def __post_init__(self) -> None:
        number("temperature", self.temperature, Between(0))
        whole("min_tokens_per_step", self.min_tokens_per_step, 0)
        for name, value in self.slots.items():
            check_slot(name, value)
        parts = self.parts
        for part, other in permutations(parts, 2):
            if reason := part.refuses(other):
                one, two = type(part).__name__, type(other).__name__
                raise ValueError(f"{one} cannot be combined with {two}: {reason}")
        for before, score in pairwise(self.scores):
            fix = f"it would discard what {before} gives: put it first, and have one such score"
            require(not score.replaces, "scores", score, fix)
        for part in parts:
            part.check(self)

    @cached_property
    def slots(self) -> dict[str, Any]:
        """What each slot holds: a part or None, or a tuple of parts."""
        return {name: getattr(self, name) for name in (*MANY, *ONE)}  # its fields, by name

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every part, those of slots with room for several first."""
        slots = self.slots
        many = [part for name in MANY for part in slots[name]]
        return (*many, *(slots[name] for name in ONE if slots[name] is not None))

    @cached_property
    def reads_canvas(self) -> bool:
        return any(part.reads_canvas for part in self.parts)

    @cached_property
    def reads_committed(self) -> bool:
        return any(part.reads_committed for part in self.parts)

    @cached_property
    def takes_back(self) -> bool:
        return any(part.takes_back for part in self.parts)

    @cached_property
    def by_position(self) -> bool:
        """Whether logits may come in slices."""
        return self.estimate.by_position and all(part.by_position for part in self.processors)

    @property
    def draws(self) -> bool:
        """Whether the text depends on the seed."""
        return self.temperature > 0 or any(part.draws for part in self.parts)

    @property
    def lossless(self) -> bool:
        """Whether verification reproduces, token for token, the same recipe without it."""
        remembers = any(part.stateful for part in self.parts)
        return self.verify.lossless and (isinstance(self.verify, Trust) or not remembers)

    def merge(self, other: Sampler) -> Sampler:
        """This recipe with the slots of `other` added; both filling a single slot is an error.

        Scores that replace the confidence come before those that change it, whoever brings them.
        """
        merged: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):  # one rule for every slot
            mine, theirs = getattr(self, name), getattr(other, name)
            if name in MANY:
                merged[name] = mine + tuple(part for part in theirs if part not in mine)
            elif vacant(theirs) or mine == theirs:
                merged[name] = mine or theirs
            elif vacant(mine):
                merged[name] = theirs
            else:
                raise ValueError(
                    f"two recipes both set {name!r}: {mine} and {theirs}; keep one of them"
                )
        merged["scores"] = tuple(sorted(merged["scores"], key=lambda score: not score.replaces))
        return Sampler(**merged)

    def bind(self, model: Any) -> Sampler:
        """The recipe with parts that need to know the model (tokens of its vocabulary) resolved."""
        if all(part.bind(model) is part for part in self.parts):
            return self
        slots = self.slots
        bound: dict[str, Any] = {name: slots[name] and slots[name].bind(model) for name in ONE}
        for name in MANY:
            bound[name] = tuple(part.bind(model) for part in slots[name])
        return replace(self, **bound)


def vacant(value: Any) -> bool:
    """Whether what a single slot or a number holds leaves it to another recipe."""
    return value.gives_way if isinstance(value, Part) else not value


def check_slot(name: str, value: Any) -> None:
    """Raise `ValueError`, with the fix, unless a slot can hold this."""
    if name in MANY:
        require(isinstance(value, tuple), name, value, "give a tuple of parts, as in (part,)")
        for part in value:
            check_part(name, part, MANY[name])
    elif value is not None or name in ("estimate", "verify"):
        check_part(name, value, ONE[name])


def check_part(name: str, part: Any, kind: type) -> None:
    if isinstance(part, kind):
        return
    fix = f"give a part whose class derives from {kind.__name__} (dlmdecode.decoding.parts)"
    if isinstance(part, type):
        fix = f"give an instance, {part.__name__}(…)"
    elif isinstance(part, Part):
        homes = (slot for slot, own in (ONE | MANY).items() if isinstance(part, own))
        fix = f"its class derives from another slot's: give it as {next(homes, 'none')}"
    refuse(name, part, fix)
