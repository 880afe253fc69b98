"""Why a token was written: which part of the recipe is the reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from dlmdecode.decoding.trace import Step

LOOP = "MostConfident"  # the loop's own choice, where the rule names too few


def reasons(steps: Sequence[Step], where: Sequence[Any], was: Any) -> Iterator[Any]:
    """The part that is the reason of each change, None for the loop.

    Args:
        where: of each change the number in `steps`, in order, the row and the position.
        was: the tokens before, an array.
    """
    which, index, at = where
    for step, (a, b) in zip(steps, bounds(which, len(steps)), strict=True):
        if a < b:
            here = index[a:b], at[a:b]
            done = [array(done)[here] for _, done in step.trail]
            yield from map([part for part, _ in step.trail].__getitem__, reason(was[a:b], done))


def reason(before: Any, done: Sequence[Any]) -> list[int]:
    """Which entry of the trail is the reason for each position's last change.

    Args:
        before: the tokens before the step, an array.
        done: what each entry says of them: the tokens after it, or whether it wants a commit. Of
            several that want one the first is the reason.
    """
    which = wanted = np.full(len(before), -1)
    for number, now in enumerate(done):
        if now.dtype == bool:
            wanted = np.where(now & (wanted < 0), number, wanted)
        else:
            mine = np.where(wanted < 0, number, wanted)
            which = np.where(now == before, which, mine)
            before, wanted = now, np.full(len(now), -1)
    return which.tolist()


def label(part: Any, confidence: float | None) -> str:
    """What a change by `part` is called."""
    return LOOP if part is None else part.label(-math.inf if confidence is None else confidence)


def array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()


def bounds(which: Any, count: int) -> Iterator[tuple[int, int]]:
    """From where to where the entries of each of so many steps stand; `which` is in order."""
    return pairwise(np.searchsorted(which, np.arange(count + 1)).tolist())
