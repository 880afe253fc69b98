"""Drafters by name: `speculate("lookup,longest=5", …)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dlmdecode.plugins import Registry
from dlmdecode.speculation.drafters.base import Drafter

D = TypeVar("D", bound=Callable[..., Drafter])
DRAFTERS: Registry[Drafter] = Registry("drafter", "dlmdecode.drafters")


def register_drafter(name: str, *, paper: str = "") -> Callable[[D], D]:
    """Make a drafter available under `name`: a class, or a function that makes one.

    Its parameters are the options of "NAME,option=value"; their annotations say what they take.

    Args:
        name: what users write; letters, digits and underscores.
        paper: arXiv id or other source, for the listing.

    Raises:
        ValueError: the name is taken, or is no identifier.
    """
    return DRAFTERS.register(name, paper)


def list_drafters() -> list[str]:
    """Names of all registered drafters, sorted."""
    return DRAFTERS.names()
