"""Samplers by name: registration, options, and composition ("adablock+credit+prophet").

    @register_sampler("mine", paper="arXiv 2601.00001")
    def mine(threshold: float = 0.9) -> Sampler:
        "One line of help."
        return Sampler(select=…)

A factory's parameters are the sampler's options. Parameters named in `CONTEXT` are not options but
facts of the call, handed over by `generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

from dlmdecode.blocks import blocks_of
from dlmdecode.checks import closest
from dlmdecode.sampler import Sampler

CONTEXT = ("max_new_tokens", "block_length", "steps", "temperature")
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

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.factory) or "").split("\n\n")[0].replace("\n", " ")

    def options(self, family: str | None = None) -> dict[str, Any]:
        """Option names and defaults, with those published for `family` where they differ."""
        signature = inspect.signature(self.factory).parameters
        defaults = {n: p.default for n, p in signature.items() if n not in CONTEXT}
        return defaults | dict(self.presets.get(family or "", {}))

    def build(self, family: str | None, context: Mapping[str, Any], **options: Any) -> Sampler:
        accepted = inspect.signature(self.factory).parameters
        context = {name: value for name, value in context.items() if name in accepted}
        return self.factory(**{**self.presets.get(family or "", {}), **context, **options})


REGISTRY: dict[str, Registered] = {}


def register_sampler(
    name: str,
    *,
    over: str | None = None,
    paper: str = "",
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[F], F]:
    """Make a sampler available under `name`; the decorated factory returns a `Sampler`.

    Args:
        name: what users write; letters, digits and underscores.
        over: the sampler that chooses positions when neither this one nor another one of a
            composition does, "vanilla" or "threshold"; None for a factory that sets `select`.
        paper: arXiv id or other source, for the listing.
        presets: options by model family ("llada", "Dream") where published defaults differ.

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
        REGISTRY[name] = Registered(name, factory, over, paper, presets or {})
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
        raise ValueError(f"unknown sampler {name!r}{near}; known: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]


def sampler(
    spec: str | Sampler | Iterable[str | Sampler],
    *,
    family: str | None = None,
    context: Mapping[str, Any] | None = None,
    **options: Any,
) -> Sampler:
    """Build a recipe from a name, "a+b+c", a `Sampler`, or a list of these.

    An option goes to the component that chooses positions if it takes it, else to the first other
    one that does. Where no component chooses positions, "threshold" or "vanilla" does, as the
    components ask for (see `dlmdecode samplers`).

    Args:
        spec: what to build.
        family: "llada" or "Dream" selects the defaults published for that model family.
        context: facts of the call for factories that ask for them (`max_new_tokens`, …).
        **options: the components' options.

    Raises:
        ValueError: unknown name, or components that cannot be combined, with the reason.
        TypeError: unknown option, with the closest known name.
    """
    ready, entries = parse(spec)
    context = dict(context or {})
    context |= {name: options.pop(name) for name in CONTEXT if name in options}
    chosen = any(recipe.select for recipe in ready) or any(e.over is None for e in entries)
    given = distribute(options, entries, None if chosen else base_of(entries))
    merged = Sampler()
    for recipe in ready:
        merged = merged.merge(recipe)
    for entry in entries:
        merged = merged.merge(entry.build(family, context, **given[entry.name]))
    if merged.select is None:
        base = registered(base_of(entries))
        merged = merged.merge(base.build(family, context, **given[""]))
    elif given[""]:
        raise TypeError(
            f"option {next(iter(given['']))!r} belongs to {base_of(entries)!r}, which this "
            f"composition does not use"
        )
    if merged.blocks is None:
        merged = merged.merge(Sampler(blocks=blocks_of(context.get("block_length", 32))))
    return merged


def parse(spec: Any) -> tuple[list[Sampler], list[Registered]]:
    items = [spec] if isinstance(spec, (str, Sampler)) else list(spec)
    ready = [item for item in items if isinstance(item, Sampler)]
    names = [
        name.strip() for item in items if isinstance(item, str) for name in item.split("+")
    ]  # fmt: skip
    wrong = [item for item in items if not isinstance(item, (str, Sampler))]
    if wrong or not items:
        raise ValueError(f"sampler={spec!r}: give a name, 'a+b', a Sampler, or a list of these")
    if len(set(names)) < len(names):
        raise ValueError(f"sampler={spec!r}: a component is named twice")
    return ready, [registered(name) for name in names]


def base_of(entries: list[Registered]) -> str:
    """The sampler that chooses positions where no component does."""
    return "threshold" if any(entry.over == "threshold" for entry in entries) else "vanilla"


def distribute(
    options: Mapping[str, Any], entries: list[Registered], base: str | None
) -> dict[str, dict[str, Any]]:
    """Which component gets which option; the base's are under ""."""
    given: dict[str, dict[str, Any]] = {entry.name: {} for entry in entries}
    given[""] = {}
    takers = [(e.name, e) for e in entries if e.over is None]
    if base is not None:
        takers.append(("", registered(base)))
    takers += [(e.name, e) for e in entries if e.over is not None]
    for option, value in options.items():
        owner = next((key for key, entry in takers if option in entry.options()), None)
        if owner is None:
            known = {name for _, entry in takers for name in entry.options()}
            names = "+".join(entry.name for _, entry in takers)
            raise TypeError(
                f"unknown option {option!r} of sampler {names!r}{closest(option, known)}; "
                f"it takes {', '.join(sorted(known)) or 'none'}"
            )
        given[owner][option] = value
    return given
