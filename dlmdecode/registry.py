"""Samplers by name: registration, options, and composition ("adablock+credit+prophet").

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from dlmdecode.checks import closest, conform, require
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.settings import DEFAULT_BLOCK_LENGTH, HINTS, SETTINGS, hints

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

    def takes(self, name: str) -> bool:
        return name in inspect.signature(self.factory).parameters

    def options(self, family: str | None = None) -> dict[str, Any]:
        """Option names and defaults, with those published for `family` where they differ."""
        signature = inspect.signature(self.factory).parameters
        defaults = {n: p.default for n, p in signature.items() if n not in SETTINGS}
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
    spec: str | Sampler | Sequence[str | Sampler],
    *,
    family: str | None = None,
    context: Mapping[str, Any] | None = None,
    own_block: int | None = None,
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
        own_block: positions of the model's own blocks, which are the call's where it gives none.
        **options: the components' options.

    Raises:
        ValueError: unknown name, or components that cannot be combined, with the reason.
        TypeError: unknown option, with the closest known name.
    """
    ready, entries = parse(spec)
    given = dict(context or {}) | {name: options.pop(name) for name in SETTINGS if name in options}
    context = {name: conform(name, value, hints()[name]) for name, value in given.items()}
    if context.get("block_length") == "auto":
        del context["block_length"]
    facts = context if own_block is None else {"block_length": own_block} | context
    chosen = any(recipe.select for recipe in ready) or any(e.over is None for e in entries)
    base = None if chosen else registered(base_of(entries))
    shares = distribute(options, entries, base)
    merged = Sampler()
    for recipe in ready:
        merged = merged.merge(recipe)
    for entry in entries:
        merged = merged.merge(entry.build(family, facts, **shares[entry.name]))
    if merged.select is None:
        base = base or registered(base_of(entries))
        merged = merged.merge(base.build(family, facts, **shares[""]))
        entries = [*entries, base]
    elif shares[""]:
        raise TypeError(
            f"option {next(iter(shares['']))!r} belongs to {base_of(entries)!r}, which this "
            f"composition does not use"
        )
    check_effect(merged, ready, entries, context)
    if merged.blocks is None:
        merged = merged.merge(Sampler(blocks=blocks_of(block_length_of(facts))))
    return merged


def block_length_of(context: Mapping[str, Any]) -> int | None:
    """The blocks of the call; where none are given, long enough that each gets one of the steps."""
    if "block_length" in context:
        return context["block_length"]
    steps, length = context.get("steps"), context.get("max_new_tokens")
    return max(DEFAULT_BLOCK_LENGTH, -(-length // steps) if steps and length else 1)


def check_effect(
    merged: Sampler,
    ready: list[Sampler],
    entries: list[Registered],
    context: Mapping[str, Any],
) -> None:
    """Refuse what was given for the call and nothing in it would read."""
    names = "+".join(entry.name for entry in entries) or "a ready Sampler"
    steps, temperature = context.get("steps"), context.get("temperature", 0)
    scheduled = steps is None or any(entry.takes("steps") for entry in entries)
    require(scheduled, "steps", steps, f"{names} follows no schedule of steps: leave it out")
    own = merged.blocks is not None and not any(entry.takes("block_length") for entry in entries)
    block_length = context.get("block_length", "auto")
    fix = f"{names} sets its own blocks: leave it out"
    require(not own or block_length == "auto", "block_length", block_length, fix)
    fixed = next((recipe.temperature for recipe in ready if recipe.temperature), 0)
    fix = f"the Sampler has temperature={fixed}: give one"
    require(temperature in (0, fixed) or not fixed, "temperature", temperature, fix)


def parse(spec: Any) -> tuple[list[Sampler], list[Registered]]:
    items = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    ready = [item for item in items if isinstance(item, Sampler)]
    names = [
        name.strip() for item in items if isinstance(item, str) for name in item.split("+")
    ]  # fmt: skip
    wrong = [item for item in items if not isinstance(item, (str, Sampler))]
    if wrong or not items or "" in names:
        raise ValueError(f"sampler={spec!r}: give a name, 'a+b', a Sampler, or a list of these")
    if len(set(names)) < len(names):
        raise ValueError(f"sampler={spec!r}: a component is named twice")
    return ready, [registered(name) for name in names]


def base_of(entries: list[Registered]) -> str:
    """The sampler that chooses positions where no component does."""
    return "threshold" if any(entry.over == "threshold" for entry in entries) else "vanilla"


def distribute(
    options: Mapping[str, Any], entries: list[Registered], base: Registered | None
) -> dict[str, dict[str, Any]]:
    """Which component gets which option; the base's are under ""."""
    given: dict[str, dict[str, Any]] = {entry.name: {} for entry in entries}
    given[""] = {}
    takers = [(e.name, e) for e in entries if e.over is None]
    if base is not None:
        takers.append(("", base))
    takers += [(e.name, e) for e in entries if e.over is not None]
    for option, value in options.items():
        owner = next((key for key, entry in takers if option in entry.options()), None)
        if owner is None:
            raise TypeError(unknown(option, [entry for _, entry in takers]))
        given[owner][option] = value
    return given


def unknown(option: str, takers: list[Registered]) -> str:
    """What to say about an option that none of `takers` has."""
    known = sorted({name for entry in takers for name in entry.options()})
    names = "+".join(entry.name for entry in takers)
    others = [name for name in list_samplers() if option in registered(name).options()]
    hint = closest(option, [*known, *SETTINGS])
    if option in HINTS:
        hint = f"; {HINTS[option]}"
    elif others:
        hint = f"; {', '.join(map(repr, others))} has it" if len(others) < 3 else ""
    takes = ", ".join(known) or "none"
    return f"unknown option {option!r} of sampler {names!r}{hint}; it takes {takes}"
