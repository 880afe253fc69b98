"""What a sampler is made of: what every part has, and a base class for each slot of a recipe.

Shapes: **B** sequences, **N** rows in flight (the sequences and their drafts), **L** positions of
the canvas, **W** positions computed, **V** vocabulary. Nothing here is written to but what a
docstring says; what comes back may be any tensor of the shape and type named, on the same device.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import closest, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.positions import Positions
from dlmdecode.ops import Proposed

Choose = Callable[[Canvas], Tensor]
"""What the recipe commits on a canvas, bool of its tokens' shape."""


class Part(ABC):  # noqa: B024  (the methods that a part must have are its slot's)
    """One answer of a recipe: a frozen dataclass that derives from its slot's class, below.

    A class attribute without annotation is a flag, False unless a part says otherwise. An unknown
    one is refused where the class is defined, with the flag that it is nearest to.
    """

    gives_way: bool = False  # any other part may take its slot
    reads_canvas: bool = False  # it reads proposals outside the open block
    reads_committed: bool = False  # it reads proposals at positions already written
    takes_back: bool = False  # it re-masks or replaces tokens of the open block
    draws: bool = False  # it reads the row's stream of noise
    stateful: bool = False  # what it does depends on earlier steps
    compares_steps: bool = False  # it needs to have seen the forward of every single step

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        check_flags(cls)

    def bind(self, model: Any) -> Part:
        """The part, or one of the same slot, for this model: where text becomes ids, for example.

        Raises `ValueError` for what the model does not have.
        """
        return self

    def check(self, sampler: Any) -> None:  # noqa: B027  (most parts have nothing to check)
        """Raise `ValueError` where the part cannot work in this `Sampler`, complete or not yet."""

    def label(self, confidence: float) -> str:
        """What a trace calls the reason for a change that this part made at such a confidence."""
        return type(self).__name__

    def refuses(self, other: Part) -> str | None:
        """Why the part cannot stand beside `other`, None if it can. Either of two may refuse.

        Goes by what `other` is and by its flags: a part that is written later is judged too.
        """
        return None


def check_flags(cls: type[Part]) -> None:
    """Raise `ValueError` for a class attribute that is no flag, field, constant or method."""
    home = [base for base in cls.__mro__ if base.__module__ == __name__]
    flags = {name for base in home for name in annotated(base)}
    own = annotated(cls)
    for name, value in vars(cls).items():
        known = name in own or name.startswith("_")
        if name in flags:
            fix = "give True or False, or a property"
            given = known or isinstance(value, bool | property)
        else:
            fix = f"a part has no such flag, and annotates its fields{closest(name, flags)}"
            given = known or is_method(value)
        require(given, f"{cls.__name__}.{name}", value, fix)


def annotated(cls: type) -> Collection[str]:
    """Names that a class itself annotates."""
    if sys.version_info >= (3, 14):  # annotations are evaluated late, and may not yet be known
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.FORWARDREF)
    return vars(cls).get("__annotations__", {})


def is_method(value: Any) -> bool:
    bound = isinstance(value, classmethod | cached_property)
    return bound or callable(value) or inspect.isdatadescriptor(value)


class Opening(Part):
    """What stands on the canvas before the first step?"""

    @abstractmethod
    def __call__(self, canvas: Canvas) -> None:
        """Write `canvas.tokens` (B, L), inside the text.

        Raises `ValueError` for what does not fit there.
        """


class Processor(Part):
    """What do the logits say?"""

    by_position: bool = False  # it treats a position's logits alike, whatever others come with them

    @abstractmethod
    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        """Logits (N, W, V) from those at `positions`; −inf bans a token, NaN is an error."""


class Estimator(Part):
    """How do logits become proposals?"""

    by_position: bool = False  # as of a `Processor`

    @abstractmethod
    def __call__(
        self, logits: Tensor, rows: Canvas, positions: Positions, need: Tensor, **how: Any
    ) -> Proposed:
        """Proposals from logits (N, W, V), flat (N · W,), where `need` (N, W) bool is true.

        `how` are the other arguments of `ops.propose`. Raises `ops.NoProposal` where it is needed
        and there is none.
        """


class Score(Part):
    """How sure is each position?

    Scores run one after the other, the first one on the proposals' probabilities.
    """

    replaces: bool = False  # it does not read the confidence it is given, so that it comes first
    signed: bool = False  # what it gives can be negative: a rank, and no probability

    @abstractmethod
    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        """Confidence (B, L) floating-point, higher is surer, from that of the score before."""


class Selection(Part):
    """Which positions of the open block to commit?"""

    ranks: bool = False  # it asks for the order of confidences only, not for how high they are

    @abstractmethod
    def __call__(self, canvas: Canvas) -> Tensor:
        """Positions (B, L) bool, by `canvas.confidence`.

        The loop keeps those that are open, and takes the most confident one where there is none.
        """


class BlockSchedule(Part):
    """How long is the block that starts at `canvas.lo`?"""

    slides: bool = False  # a block opens before every step, at the row's first mask

    @abstractmethod
    def __call__(self, canvas: Canvas) -> Tensor:
        """Its positions (B,) int64, at least 1; the text's end cuts it."""

    @abstractmethod
    def reach(self, canvas: Canvas) -> Tensor:
        """The most that it can be, (B,) int64: so far ahead of `canvas.hi` proposals are made."""


class Stop(Part):
    """Commit everything that is left, now?"""

    @abstractmethod
    def __call__(self, canvas: Canvas) -> Tensor:
        """Rows (B,) bool."""


class Revision(Part):
    """What to take back after a commit?"""

    @abstractmethod
    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        """Re-mask by `canvas.remask`, fewer than the step before committed, or end the text by
        `canvas.truncate`; `committed` (B, L) bool is what this step wrote.

        `canvas.held` (B,) keeps a full block open for another forward, so often at most.
        """


class Verification(Part):
    """Which drafts to look at, and which one to keep?"""

    lossless: bool = True  # it reproduces, token for token, the stateless recipe without it

    @abstractmethod
    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        """The N ≥ B rows to evaluate: each of the B followed by its drafts, numbered in `branch`.

        Drafts keep their sequence's `row`, and its own row is branch 0; it may be left out.
        """

    @abstractmethod
    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        """One of the N rows for each sequence, in order, with branch 0."""

    def looks(self, canvas: Canvas) -> Tensor | None:
        """Rows (B,) bool that only look in this step, and commit nothing; None is no row.

        A row that looks at a canvas commits once it has seen it.
        """
        return None


class Evaluation(Part):
    """How do rows reach the model, if not by the cache of the call?"""

    sees_suffix: bool = False  # it shows the model what `visible` (dlmdecode/caches/view.py) says
    hides_end: bool = False  # it may hide what is behind a block, given or not

    @abstractmethod
    def __call__(self, model: Any, settings: Any) -> Forward:
        """The forward of a `Denoiser` under the call's `Settings`.

        Raises `ValueError` for a model or a setting that it cannot work with.
        """


@dataclass(frozen=True)
class TakeBest(Estimator):
    """The best token of the distribution, or one drawn from it where there is a temperature."""

    gives_way = True
    by_position = True

    def __call__(
        self, logits: Tensor, rows: Canvas, positions: Positions, need: Tensor, **how: Any
    ) -> Proposed:
        return ops.propose(logits.flatten(0, 1), need=need.flatten(), **how)


@dataclass(frozen=True)
class Trust(Verification):
    """No drafts: what the model proposes for a row is taken at its word."""

    gives_way = True

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        return canvas

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        return rows
