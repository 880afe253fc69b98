"""One way to say that an argument is wrong: its name, its value, and what to give instead."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor


def require(holds: bool, name: str, value: Any, fix: str) -> None:
    """Raise `ValueError` unless `holds`; of a tensor it shows dtype, shape and device."""
    if not holds:
        tensor = isinstance(value, Tensor)
        shown = f"{value.dtype} {tuple(value.shape)} on {value.device}" if tensor else repr(value)
        raise ValueError(f"{name}={shown}: {fix}")


def require_finite(name: str, value: float, infinite: bool = False) -> None:
    """Raise unless `value` is a number, not NaN, and (unless `infinite`) finite."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = number and not math.isnan(value) and (infinite or not math.isinf(value))
    require(fits, name, value, "give a number" if infinite else "give a finite number")


def closest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known name nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
