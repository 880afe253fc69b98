"""Samplers put together: "adablock+credit,gamma=0.3" as one recipe, each option with its owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

from dlmdecode.checks import closest, conform, require
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.hints import HINTS
from dlmdecode.options import split
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.registry import Registered, list_samplers, registered
from dlmdecode.settings import DEFAULT_BLOCK_LENGTH, SETTINGS, hints, parse


def sampler(
    spec: str | Sampler | Sequence[str | Sampler],
    *,
    family: str | None = None,
    context: Mapping[str, Any] | None = None,
    **options: Any,
) -> Sampler:
    """Build a recipe from `NAME[+NAME][,OPTION=VALUE]…`, a `Sampler`, or a list of these.

    An option goes to the component that has it. One that several have needs the name of its own,
    as "credit.gamma=0.3" in the text or `**{"credit.gamma": 0.3}`. Where no component chooses
    positions, "threshold" or "vanilla" does, as the components ask for (see `dlmdecode samplers`).

    Args:
        spec: what to build.
        family: "llada" or "Dream" selects the defaults published for that model family.
        context: facts of the call for factories that ask for them (`max_new_tokens`, …).
        **options: the components' options.

    Raises:
        ValueError: unknown name, an option that several components have or that is given twice,
            or components that cannot be combined, with the reason.
        TypeError: unknown option, with the closest known name.
    """
    composition, options = Composition.read(spec, options)
    given = dict(context or {}) | {name: options.pop(name) for name in SETTINGS if name in options}
    facts = {name: conform(name, value, hints()[name]) for name, value in given.items()}
    if facts.get("block_length") == "auto":
        del facts["block_length"]
    return composition.build(family, facts, options)


def read(text: str) -> tuple[str, dict[str, Any]]:
    """The names of "NAME[+NAME][,OPTION=VALUE]…", and its options with the values that they mean.

    Raises:
        ValueError: it is of another form.
    """
    names, options = split("sampler", text)
    return names, {name: parse(name, value) for name, value in options.items()}


@dataclass(frozen=True)
class Composition:
    """Recipes that are ready and samplers of the registry, to be merged into one recipe."""

    ready: tuple[Sampler, ...]
    entries: tuple[Registered, ...]

    @classmethod
    def read(cls, spec: Any, options: Mapping[str, Any]) -> tuple[Composition, dict[str, Any]]:
        """What `spec` names, and `options` with those that stand in it.

        Options of a list's text that names a single sampler are that sampler's.
        """
        items = list(spec) if isinstance(spec, (list, tuple)) else [spec]
        ready = [item for item in items if isinstance(item, Sampler)]
        texts = [item for item in items if isinstance(item, str)]
        parts = [
            ([name.strip() for name in names.split("+")], given)
            for names, given in map(read, texts)
        ]
        names = [name for some, _ in parts for name in some]
        known = 0 < len(items) == len(ready) + len(texts) and "" not in names
        require(known, "sampler", spec, "give a name, 'a+b', a Sampler, or a list of these")
        require(len(set(names)) == len(names), "sampler", spec, "a component is named twice")
        composition = cls(tuple(ready), tuple(map(registered, names)))
        pooled = dict(options)
        for some, given in parts:
            for option, value in given.items():
                alone = len(items) > 1 and len(some) == 1
                if alone and option in registered(some[0]).options():
                    option = f"{some[0]}.{option}"
                fix = f"the sampler's text says {option}={value!r}; give one"
                require(option not in pooled, option, pooled.get(option), fix)
                pooled[option] = value
        return composition, pooled

    @cached_property
    def base(self) -> Registered:
        """The sampler that chooses positions where no component does."""
        over_threshold = any(entry.over == "threshold" for entry in self.entries)
        return registered("threshold" if over_threshold else "vanilla")

    @cached_property
    def components(self) -> tuple[Registered, ...]:
        """All that options may be for: the entries, and the base where none of them chooses."""
        chosen = any(recipe.select for recipe in self.ready)
        chosen = chosen or any(entry.over is None for entry in self.entries)
        return self.entries if chosen else (*self.entries, self.base)

    def options(self) -> dict[str, Any]:
        """Names and defaults of all options; those of several components by their full names."""
        known = [(entry.name, entry.options()) for entry in self.components]
        count = Counter(name for _, options in known for name in options)
        return {
            name if count[name] == 1 else f"{owner}.{name}": value
            for owner, options in known
            for name, value in options.items()
        }

    def build(
        self,
        family: str | None,
        facts: Mapping[str, Any],
        options: Mapping[str, Any],
        own_block: int | None = None,
    ) -> Sampler:
        """The recipe; raises as `sampler` does.

        Args:
            family: of the model, for the defaults published for it.
            facts: of the call, under the names of settings.
            options: the components' own.
            own_block: positions of the model's own blocks, which are the call's if it gives none.
        """
        known = facts if own_block is None else {"block_length": own_block} | dict(facts)
        shares, used = self.shares(options), list(self.entries)
        built = [entry.build(family, known, **shares[entry.name]) for entry in self.entries]
        merged = reduce(Sampler.merge, [*self.ready, *built])
        share = shares.get(self.base.name, {})
        if merged.select is None:
            merged = merged.merge(self.base.build(family, known, **share))
            used.append(self.base)
        elif self.base not in self.entries and share:
            raise TypeError(
                f"option {next(iter(share))!r} belongs to {self.base.name!r}, which this "
                "composition does not use"
            )
        check_effect(merged, self.ready, used, facts)
        if merged.blocks is None:
            merged = replace(merged, blocks=blocks_of(block_length_of(known)))
        return merged

    def shares(self, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Which component gets which option."""
        given: dict[str, dict[str, Any]] = {entry.name: {} for entry in self.components}
        for name, value in options.items():
            owner, option = self.owner(name, value)
            other = f"{owner}.{option}={given[owner].get(option)!r} is given, too; give one"
            require(option not in given[owner], name, value, other)
            given[owner][option] = value
        return given

    def owner(self, name: str, value: Any) -> tuple[str, str]:
        """The component that an option is for, and the option's name there."""
        wanted, dot, option = name.rpartition(".")
        takers = [entry.name for entry in self.components if option in entry.options()]
        if dot:
            takers = [taker for taker in takers if taker == wanted]
        if not takers:
            raise TypeError(self.unknown(name))
        full = " or ".join(f"{taker}.{option}" for taker in takers)
        fix = f"{' and '.join(takers)} have an option of this name: give {full}"
        require(len(takers) == 1, name, value, fix)
        return takers[0], option

    def unknown(self, name: str) -> str:
        """What to say about an option that no component has."""
        known = self.options()
        full = [f"{entry.name}.{option}" for entry in self.components for option in entry.options()]
        others = [other for other in list_samplers() if name in registered(other).options()]
        hint = closest(name, full if "." in name else [*known, *SETTINGS])
        if name in HINTS:
            hint = f"; {HINTS[name]}"
        elif others:
            hint = f"; {', '.join(map(repr, others))} has it" if len(others) < 3 else ""
        names = "+".join(entry.name for entry in self.components) or "a ready Sampler"
        takes = ", ".join(sorted(known)) or "none"
        return f"unknown option {name!r} of sampler {names!r}{hint}; it takes {takes}"


def block_length_of(facts: Mapping[str, Any]) -> int | None:
    """The blocks of the call; where none are given, long enough that each gets one of the steps."""
    if "block_length" in facts:
        return facts["block_length"]
    steps, length = facts.get("steps"), facts.get("max_new_tokens")
    return max(DEFAULT_BLOCK_LENGTH, -(-length // steps) if steps and length else 1)


def check_effect(
    merged: Sampler,
    ready: Sequence[Sampler],
    entries: Sequence[Registered],
    facts: Mapping[str, Any],
) -> None:
    """Refuse what was given for the call and nothing in it would read."""
    names = "+".join(entry.name for entry in entries) or "a ready Sampler"
    steps, temperature = facts.get("steps"), facts.get("temperature", 0)
    scheduled = steps is None or any(entry.takes("steps") for entry in entries)
    require(scheduled, "steps", steps, f"{names} follows no schedule of steps: leave it out")
    slides = merged.blocks is not None and merged.blocks.slides
    fix = f"{names} has a window that slides, which has no share of the steps: leave it out"
    require(steps is None or not slides, "steps", steps, fix)
    own = merged.blocks is not None and not any(entry.takes("block_length") for entry in entries)
    block_length = facts.get("block_length", "auto")
    fix = f"{names} sets its own blocks: leave it out"
    require(not own or block_length == "auto", "block_length", block_length, fix)
    fixed = next((recipe.temperature for recipe in ready if recipe.temperature), 0)
    fix = f"the Sampler has temperature={fixed}: give one"
    require(temperature in (0, fixed) or not fixed, "temperature", temperature, fix)
