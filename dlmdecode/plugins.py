"""What is to be had by name, with options as "NAME,option=value".

    DRAFTERS: Registry[Drafter] = Registry("drafter", "dlmdecode.drafters")

    @DRAFTERS.register("mine", paper="arXiv 2601.00001")
    class Mine(Drafter):
        "One line of help."
        def __init__(self, longest: Count = 3): …

An entry's parameters are its options, and their annotations say what they take
(`dlmdecode/checks.py`). Other packages bring entries through the registry's entry-point group.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from typing import Any, Generic, TypeVar, get_type_hints

from dlmdecode.checks import closest, conform, require, shown
from dlmdecode.options import parse, split

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])


@cache
def entry_points(group: str) -> metadata.EntryPoints:
    """What installed packages offer, looked up once: it takes as long as a forward or two."""
    return metadata.entry_points(group=group)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What a name stands for: a class or function, and what a listing says about it.

    Attributes:
        given: how many of the first parameters are no options: the library fills them in.
    """

    name: str
    make: Callable[..., T]
    paper: str
    given: int = 0
    recorded: tuple[str, ...] = ()  # cases of tests/golden: the authors' own code
    second: tuple[str, ...] = ()  # and those of somebody else's implementation

    @property
    def verified(self) -> str:
        return verified_against(self.recorded, self.second)

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.make) or "").split("\n\n")[0].replace("\n", " ")

    def options(self) -> dict[str, Any]:
        """Names and defaults of the options, `inspect.Parameter.empty` where there is none."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """Those that are options."""
        return list(inspect.signature(self.make).parameters.values())[self.given :]

    def conformed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as their annotations want them; `ValueError` for one out of range."""
        return {name: conform(name, value, self.wants.get(name)) for name, value in options.items()}

    @cached_property
    def wants(self) -> dict[str, Any]:
        make: Any = self.make
        return get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)


def verified_against(recorded: tuple[str, ...], second: tuple[str, ...]) -> str:
    """What something was compared with, token for token."""
    against = [("authors' code", recorded), ("second opinion", second)]
    return ", ".join(name for name, cases in against if cases) or "paper only"


class Registry(dict[str, Entry[T]]):
    """Entries by name.

    Args:
        kind: what one of them is called in messages; also the argument that names them.
        group: the entry-point group of other packages.
        given: see `Entry`.
    """

    def __init__(self, kind: str, group: str, given: int = 0):
        super().__init__()
        self.kind, self.group, self.given = kind, group, given

    def register(
        self,
        name: str,
        paper: str = "",
        recorded: tuple[str, ...] = (),
        second: tuple[str, ...] = (),
    ) -> Callable[[M], M]:
        """Make the decorated class or function available under `name`.

        Raises:
            ValueError: the name is taken, or is no identifier.
        """

        def add(make: M) -> M:
            require(name.isidentifier(), "name", name, "use letters, digits and underscores")
            fix = f"a {self.kind} of this name is registered already"
            require(name not in self, "name", name, fix)
            self[name] = Entry(name, make, paper, self.given, recorded, second)
            return make

        return add

    def names(self) -> list[str]:
        """All names, sorted, those of installed packages among them."""
        for entry in entry_points(group=self.group):
            if entry.name not in self:
                entry.load()
        return sorted(self)

    def entry(self, name: str) -> Entry[T]:
        """What `name` stands for; `ValueError` with the closest name for an unknown one."""
        known = self.names()
        if name not in known:
            ways = f"{', '.join(map(repr, known))}{closest(name, known)}"
            raise ValueError(f"{self.kind}={shown(name)}: give one of {ways}")
        return self[name]

    def parse(self, spec: str) -> tuple[Entry[T], dict[str, Any]]:
        """The entry and the options that "NAME,option=value,…" means.

        Raises:
            ValueError: unknown name or option, or one that is not of the form option=value.
        """
        name, given = split(self.kind, spec)
        entry, options = self.entry(name), {}
        known = entry.options()
        for option, value in given.items():
            if option not in known:
                taken = f"{', '.join(known) or 'no options'}{closest(option, known)}"
                raise ValueError(f"{self.kind}={shown(spec)}: {entry.name} takes {taken}")
            options[option] = parse(value, entry.wants.get(option))
        return entry, options

    def build(self, spec: str) -> T:
        """What "NAME,option=value,…" makes.

        Raises:
            ValueError: see `parse`; an option out of range, or one missing that has no default.
        """
        entry, options = self.parse(spec)
        empty = inspect.Parameter.empty
        missing = [n for n, d in entry.options().items() if d is empty and n not in options]
        fix = f"{entry.name} needs {', '.join(f'{name}=…' for name in missing)}"
        require(not missing, self.kind, spec, fix)
        return entry.make(**entry.conformed(options))
