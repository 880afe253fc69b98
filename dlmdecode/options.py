"""`option=value` as users write it on a command line, and in the name of a sampler or a cache."""

from __future__ import annotations

import contextlib
import json
from typing import Any


def assignment(text: str) -> tuple[str, str]:
    """The two sides of `option=value`.

    Raises:
        ValueError: it is none.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name.isidentifier():
        raise ValueError(f"{text!r} is not of the form option=value")
    return name, value


def value_of(text: str) -> Any:
    """none, true, false, a number, JSON in brackets, a comma-separated tuple, or else the text."""
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    if text[:1] in ("[", "{", '"'):
        with contextlib.suppress(json.JSONDecodeError):
            return hashable(json.loads(text))
    if "," in text:
        return tuple(value_of(part) for part in text.split(","))
    return text


def hashable(value: Any) -> Any:
    """Lists as tuples, and objects with whole-number names as dicts with such keys."""
    if isinstance(value, list):
        return tuple(map(hashable, value))
    if isinstance(value, dict):
        return {int(k) if k.lstrip("-").isdigit() else k: hashable(v) for k, v in value.items()}
    return value
