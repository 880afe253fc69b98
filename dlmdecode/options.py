"""NAME[,OPTION=VALUE]…: how users write a sampler or a cache with options, wherever they do.

    "adablock+credit,alpha=0.5,delimiters=.,;"    alpha is 0.5, delimiters are "." and ";"

A comma begins the next option where `option=` follows it; any other comma belongs to the value. An
option may say whose it is: `credit.gamma=0.3`.
"""

from __future__ import annotations

import contextlib
import json
import re
from types import NoneType
from typing import Any, get_origin

from dlmdecode.checks import alternatives, require

SYNTAX = "NAME[+NAME][,OPTION=VALUE]…"
SEPARATOR = re.compile(r",(?=\s*[^\W\d][\w.]*\s*=)")


def split(argument: str, text: str) -> tuple[str, dict[str, str]]:
    """The name before the options, and the options with their values as they are written.

    Raises:
        ValueError: what follows the name is no `option=value`, or an option stands there twice;
            names the `argument` that the text was given for.
    """
    first, *pairs = SEPARATOR.split(text)
    name, comma, rest = first.partition(",")
    found: dict[str, str] = {}
    for pair in [rest, *pairs] if comma else pairs:
        try:
            option, value = assignment(pair)
        except ValueError as error:
            raise ValueError(f"{argument}={text!r}: {error}") from None
        require(option not in found, argument, text, f"{option!r} is given twice")
        found[option] = value
    require("=" not in name, argument, text, "options stand behind a comma: NAME,OPTION=VALUE")
    return name.strip(), found


def assignment(text: str) -> tuple[str, str]:
    """The two sides of `option=value` or `component.option=value`.

    Raises:
        ValueError: it is none.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{text!r} is not of the form option=value")
    return name, value


def parse(text: str, hint: Any) -> Any:
    """The value that `text` means for what is annotated as `hint`: words and paths stay text."""
    kinds = {kind for kind, _ in alternatives(hint)}
    if text[:1] == "[" and any(get_origin(kind) is tuple for kind in kinds):
        return value_of(text)
    if str not in kinds or kinds & {int, float}:
        return value_of(text)
    return None if NoneType in kinds and text.lower() == "none" else text


def value_of(text: str) -> Any:
    """none, true, false, a number, JSON in brackets, a comma-separated tuple, or else the text."""
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    if text[:1] in ("[", "{", '"'):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
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
