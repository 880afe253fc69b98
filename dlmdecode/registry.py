"""Samplers by name: their registration and their options.

    @register_sampler("mine", paper="arXiv 2601.00001")
    def mine(threshold: Probability = 0.9) -> Sampler:
        "One line of help."
        return Sampler(select=…)

A factory's parameters are the sampler's options, and their annotations say what they take
(`dlmdecode/checks.py`). Parameters with the name of a setting are no options but facts of the call,
handed over by `generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from dlmdecode.checks import closest, conform
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.plugins import entry_points, verified_against
from dlmdecode.presets import AUTO
from dlmdecode.settings import SETTINGS

ENTRY_POINTS = "dlmdecode.samplers"
F = TypeVar("F", bound=Callable[..., Sampler])


@dataclass(frozen=True)
class Registered:
    """A sampler of the registry: its factory and what the listing says about it."""

    name: str
    factory: Callable[..., Sampler]
    over: str | None  # the sampler that chooses positions where no other of the composition does
    paper: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by model family
    recorded: tuple[str, ...] = ()  # cases of tests/golden: the authors' own code
    second: tuple[str, ...] = ()  # and those of somebody else's implementation

    @property
    def verified(self) -> str:
        """What the sampler was compared with, token for token."""
        return verified_against(self.recorded, self.second)

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.factory) or "").split("\n\n")[0].replace("\n", " ")

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.factory).parameters

    def takes(self, name: str) -> bool:
        return name in self.parameters

    def options(self, family: str | None = None) -> dict[str, Any]:
        """Option names and defaults, with those published for `family` where they differ."""
        defaults = {n: p.default for n, p in self.parameters.items() if n not in SETTINGS}
        return defaults | dict(self.presets.get(family or "", {}))

    def build(self, family: str | None, context: Mapping[str, Any], **options: Any) -> Sampler:
        known = {name: value for name, value in context.items() if self.takes(name)}
        given = {**self.presets.get(family or "", {}), **known, **options}
        wants = self.wants
        given = {name: conform(name, value, wants.get(name)) for name, value in given.items()}
        return self.factory(**given)

    @cached_property
    def wants(self) -> dict[str, Any]:
        """The annotations of the factory's parameters."""
        is_function = inspect.isroutine(self.factory)
        return get_type_hints(self.factory, include_extras=True) if is_function else {}


REGISTRY: dict[str, Registered] = {}


def register_sampler(
    name: str,
    *,
    over: str | None = None,
    paper: str = "",
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    recorded: tuple[str, ...] = (),
    second: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Make a sampler available under `name`; the decorated factory returns a `Sampler`.

    Args:
        name: what users write; letters, digits and underscores.
        over: the sampler that chooses positions when neither this one nor another one of a
            composition does, "vanilla" or "threshold"; None for a factory that sets `select`.
        paper: arXiv id or other source, for the listing.
        presets: options by model family ("llada", "Dream") where published defaults differ.
        recorded: methods of `tests/golden/cases`, runs of the authors' own code.
        second: those recorded from somebody else's implementation.

    Raises:
        ValueError: the name is taken, or is no identifier.
    """

    def register(factory: F) -> F:
        if not name.isidentifier():
            raise ValueError(f"sampler name {name!r}: use letters, digits and underscores")
        if name in REGISTRY:
            raise ValueError(
                f"sampler {name!r} is registered already by {REGISTRY[name].factory.__module__}"
            )
        REGISTRY[name] = Registered(name, factory, over, paper, presets or {}, recorded, second)
        return factory

    return register


def load_samplers() -> None:
    """Import the built-in samplers and those of installed packages (entry points), once."""
    import dlmdecode.samplers  # noqa: F401  (registers on import)

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in REGISTRY:
            entry.load()


def list_samplers() -> list[str]:
    """Names of all registered samplers, sorted."""
    load_samplers()
    return sorted(REGISTRY)


def registered(name: str) -> Registered:
    """The registry's entry; `ValueError` with the closest name for an unknown one."""
    load_samplers()
    if name not in REGISTRY:
        near = closest(name, REGISTRY)
        if name == AUTO:
            near = "; its preset is looked up by generate, engines and serve: name the sampler here"
        raise ValueError(f"unknown sampler {name!r}{near}; known: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]
