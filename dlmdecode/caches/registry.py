"""Cache policies by name.

    @register_cache("mine", paper="arXiv 2601.00001")
    class Mine:
        "One line of help."
        def __init__(self, model: Denoiser, budget: int = 64): …
        def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]: …

A policy is a `Forward` made for one model and one decoding. The parameters after the model are its
options: `cache="mine,budget=32"`. A package can offer policies by entry points.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from dlmdecode.checks import closest, require
from dlmdecode.decoding.forward import Forward
from dlmdecode.models.protocol import Denoiser
from dlmdecode.options import split, value_of

ENTRY_POINTS = "dlmdecode.caches"
Policy = Callable[..., Forward]
P = TypeVar("P", bound=Policy)


@dataclass(frozen=True)
class RegisteredCache:
    """A policy of the registry and what a listing says about it."""

    name: str
    policy: Policy
    paper: str

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.policy) or "").split("\n\n")[0].replace("\n", " ")

    def options(self) -> dict[str, Any]:
        """Names and defaults of the options."""
        _, *parameters = inspect.signature(self.policy).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}


REGISTRY: dict[str, RegisteredCache] = {}


def register_cache(name: str, *, paper: str = "") -> Callable[[P], P]:
    """Make a cache policy available under `name`: a class or function `(model, **options)`.

    Args:
        name: what users write; letters, digits and underscores.
        paper: arXiv id or other source, for the listing.

    Raises:
        ValueError: the name is taken, or is no identifier.
    """

    def register(policy: P) -> P:
        require(name.isidentifier(), "name", name, "use letters, digits and underscores")
        require(name not in REGISTRY, "name", name, "a cache of this name is registered already")
        REGISTRY[name] = RegisteredCache(name, policy, paper)
        return policy

    return register


def list_caches() -> list[str]:
    """Names of all registered cache policies, sorted."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in REGISTRY:
            entry.load()
    return sorted(REGISTRY)


def registered(name: str) -> RegisteredCache:
    """The registry's entry; `ValueError` with the closest name for an unknown one."""
    known = list_caches()
    near = closest(name, known)
    require(name in known, "cache", name, f"give one of {', '.join(map(repr, known))}{near}")
    return REGISTRY[name]


def cache_policy(model: Denoiser, cache: str | Policy) -> Forward:
    """A new forward for one decoding with `model`.

    Args:
        model: the denoiser.
        cache: a name, "name,option=value,…", or a policy itself: what makes a forward of a model.

    Raises:
        ValueError: unknown name or option, or a policy that this model cannot have.
    """
    policy, options = find_policy(cache)
    return policy(model, **options)


def find_policy(cache: str | Policy) -> tuple[Policy, dict[str, Any]]:
    """The policy that `cache` means and its options; raises as `cache_policy` does."""
    if not isinstance(cache, str):
        require(callable(cache), "cache", cache, "give a name, or what makes a forward of a model")
        return cache, {}
    name, given = split(cache)
    entry, options = registered(name), {}
    known = entry.options()
    for option, value in given.items():
        fix = f"{name} takes {', '.join(known) or 'no options'}{closest(option, known)}"
        require(option in known, "cache", cache, fix)
        options[option] = value_of(value)
    return entry.policy, options
