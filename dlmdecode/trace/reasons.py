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


def reasons(steps: Sequence[Step], where: Sequence[Any], was: Sequence[int]) -> Iterator[Any]:
    """The part that is the reason of each change, None for the loop.

    Args:
        where: of each change the number in `steps`, in order, the row and the position.
        was: the tokens before.
    """
    which, index, at = where
    for step, (a, b) in zip(steps, bounds(which, len(steps)), strict=True):
        here = index[a:b], at[a:b]
        done = zip(*(array(done)[here].tolist() for _, done in step.trail if a < b), strict=True)
        for before, one in zip(was[a:b], done, strict=True):
            yield step.trail[reason(before, one)][0]


def reason(before: int, done: Sequence[int | bool]) -> int:
    """Which entry of the trail is the reason for a position's last change.

    Args:
        before: its token before the step.
        done: what each entry says of it: the token after it, or whether it wants a commit. Of
            several that want one the first is the reason.
    """
    which, wanted = -1, -1
    for number, now in enumerate(done):
        if isinstance(now, bool):
            wanted = number if now and wanted < 0 else wanted
        else:
            which = which if now == before else number if wanted < 0 else wanted
            before, wanted = now, -1
    return which


def label(part: Any, confidence: float | None) -> str:
    """What a change by `part` is called."""
    return LOOP if part is None else part.label(-math.inf if confidence is None else confidence)


def array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()


def bounds(which: Any, count: int) -> Iterator[tuple[int, int]]:
    """From where to where the entries of each of so many steps stand; `which` is in order."""
    return pairwise(np.searchsorted(which, np.arange(count + 1)).tolist())
