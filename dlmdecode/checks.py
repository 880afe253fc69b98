"""One way to say that an argument is wrong: its name, its value, and what to give instead.

What an argument takes stands in its annotation, which `conform` reads:

    def mine(threshold: Probability = 0.9, radius: Count | None = None) -> Sampler: …
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, SupportsIndex, Union, get_args, get_origin

import numpy as np
from torch import Tensor

MOST_SHOWN = 200  # characters of a value in a message
LARGEST = 2.0**53  # beyond it positions and sums of an int64 or a double are no longer exact


@dataclass(frozen=True)
class Between:
    """Numbers from `low` (or above it) to `high`."""

    low: float = -LARGEST
    high: float = LARGEST
    above: bool = False
    name: str = ""  # what a message calls such a number

    def __contains__(self, value: float) -> bool:
        reaches = value > self.low if self.above else value >= self.low
        return reaches and value <= self.high

    def say(self, kind: str) -> str:
        if self.name:
            return self.name
        bounds = []
        if self.low > -LARGEST:
            bounds.append(f"above {self.low:g}" if self.above else f"at least {self.low:g}")
        if self.high < LARGEST:
            bounds.append(f"at most {self.high:g}")
        return ", ".join([kind, " and ".join(bounds)]) if bounds else kind


@dataclass(frozen=True)
class OneOf:
    """The words that an argument may be."""

    words: Collection[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def say(self, kind: str) -> str:
        return f"one of {', '.join(map(repr, self.words))}"


Count = Annotated[int, Between(1)]
Natural = Annotated[int, Between(0)]
NonNegative = Annotated[float, Between(0)]
Positive = Annotated[float, Between(0, above=True)]
Penalty = Annotated[float, Between(1e-6)]  # logits are divided by it, and stay finite
Probability = Annotated[float, Between(0, 1)]
PositiveProbability = Annotated[float, Between(0, 1, above=True)]

NAMES = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}


def require(holds: bool, name: str, value: Any, fix: str) -> None:
    """Raise `ValueError` unless `holds`; of a tensor or an array it shows dtype and shape."""
    if not holds:
        refuse(name, value, fix)


def refuse(name: str, value: Any, fix: str) -> NoReturn:
    """Raise `ValueError`; where a check is made often, so that only this one words its fix."""
    raise ValueError(f"{name}={shown(value)}: {fix}")


def check_temperature(value: float) -> None:
    """Raise `ValueError` for a temperature that logits cannot be divided by in float32."""
    require(value == 0 or value >= 1e-6, "temperature", value, "give 0, or at least 1e-6")


def shown(value: Any) -> str:
    """A value in a message: one short line."""
    value = plain(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} on {value.device}"
    if isinstance(value, np.ndarray):
        return f"numpy {value.dtype} {value.shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def plain(value: Any) -> Any:
    """The Python number that a numpy or torch scalar, or another kind of number, stands for.

    What is no number comes back as it is.
    """
    if value is None or isinstance(value, (int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.item() if value.ndim == 0 else value
    if isinstance(value, (Integral, SupportsIndex)):
        return value.__index__()
    return float(value) if isinstance(value, Real) else value


def as_numbers(value: Any) -> Any:
    """A number, or a list of them, as Python's."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.tolist()
    return list(map(plain, value)) if isinstance(value, (list, tuple)) else plain(value)


def conform(name: str, value: Any, hint: Any) -> Any:
    """`value` as its annotation `hint` wants it, numbers of any library as Python's.

    The annotation is a union of int, float, bool, str and None, the first ones with a `Between` or
    a `OneOf` where they are `Annotated`. A value for any other type comes back as it is.

    Raises:
        ValueError: it is none of these; True and False are no numbers.
    """
    value = plain(value)
    if hint is None:  # a parameter without annotation
        return value
    wanted = alternatives(hint)
    for kind, limit in wanted:
        if kind not in (*NAMES, NoneType):
            return value
        if fits(value, kind) and (limit is None or value in limit):
            return float(value) if kind is float else value
    names = [(NAMES.get(kind, "None"), limit) for kind, limit in wanted]
    ways = "; or ".join(name if limit is None else limit.say(name) for name, limit in names)
    words = [w for _, limit in wanted if isinstance(limit, OneOf) for w in limit.words]
    more = closest(value, words) if isinstance(value, str) else ""
    open_ended = [m for _, m in wanted if isinstance(m, Between) and m.high == LARGEST]
    if open_ended and isinstance(value, (int, float)) and value > LARGEST:
        more = ", below 2**53"
    raise ValueError(f"{name}={shown(value)}: give {ways}{more}")


@cache
def alternatives(hint: Any) -> list[tuple[Any, Any]]:
    """The types of an annotation, each with its limit or None."""
    if get_origin(hint) in (Union, UnionType):
        return [one for part in get_args(hint) for one in alternatives(part)]
    if get_origin(hint) is Annotated:
        kind, *extra = get_args(hint)
        limit = next((e for e in extra if isinstance(e, (Between, OneOf))), None)
        return alternatives(kind) if limit is None else [(kind, limit)]
    return [(hint, None)]


def fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


@lru_cache(256)
def limited(kind: type, limit: Between) -> Any:
    """The annotation of a number within a limit; to make one takes longer than to check one."""
    return Annotated[kind, limit]


def number(name: str, value: Any, limit: Between | None = None) -> float:
    """`value` as a finite float within `limit`."""
    return conform(name, value, limited(float, limit) if limit else float)


def whole(name: str, value: Any, low: int = 1) -> int:
    """`value` as an int of at least `low`."""
    return conform(name, value, limited(int, Between(low)))


def check_id(name: str, id: int, model: Any) -> None:
    """Raise unless `id` is a token of a `Denoiser`'s, whose vocabulary may be unknown."""
    size = model.vocab_size
    require(id >= 0, name, id, "token ids are 0 or more")
    require(size is None or id < size, name, id, f"token ids are 0 to {(size or 0) - 1}")


def is_function(value: Any) -> bool:
    """Whether it can be called; a class, which could be, is given by mistake."""
    return callable(value) and not isinstance(value, type)


def closest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the known name nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
