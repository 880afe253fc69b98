"""Model families by name: which class a checkpoint's config.json asks for.

    @register_family("mine", "MineForCausalLM")
    class Mine(Transformer): …

A name is a `model_type` or an architecture class. A package can offer families by entry points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from dlmdecode.checks import closest, require
from dlmdecode.models.config import Config
from dlmdecode.models.transformer import Transformer

ENTRY_POINTS = "dlmdecode.families"
BLOCK_CAUSAL = "it writes block by block under a block-causal mask"
# Diffusion families that nobody has registered yet, by model_type or architecture class.
NOT_IMPLEMENTED = {
    "sdar_moe": BLOCK_CAUSAL + " and has experts",
    "diffusion_gemma": "it starts from random tokens, not from masks: use transformers",
}
EMBEDDED: dict[str, Path] = {}  # folders of the models that come with the package, by name
C = TypeVar("C", bound=type[Transformer])


@dataclass(frozen=True)
class Family:
    """A class of the registry, the names it answers to, and a condition where it shares them."""

    kind: type[Transformer]
    names: tuple[str, ...]
    when: Callable[[Config], bool] | None
    checkpoints: str = ""  # published ones, for the listing
    recorded: tuple[str, ...] = ()  # cases of tests/golden: the authors' own code
    second: tuple[str, ...] = ()  # and those of somebody else's implementation

    @property
    def verified(self) -> str:
        """What the family was compared with, number for number and token for token."""
        against = [("authors' code", self.recorded), ("second opinion", self.second)]
        return ", ".join(name for name, cases in against if cases) or "no run of its own"


FAMILIES: list[Family] = []


def register_family(
    *names: str,
    when: Callable[[Config], bool] | None = None,
    embedded: Mapping[str, Path] | None = None,
    checkpoints: str = "",
    recorded: tuple[str, ...] = (),
    second: tuple[str, ...] = (),
) -> Callable[[C], C]:
    """Make `load` build the decorated `Transformer` for checkpoints with one of these names.

    Args:
        *names: model types, and architecture classes where those of a model type differ.
        when: whether it is this family's configuration, where another family has the same name.
        embedded: folders of checkpoints that come with the family, by the name that users write.
        checkpoints: published ones, for the listing.
        recorded: methods of `tests/golden/cases`, runs of the authors' own code on the family.
        second: those recorded from somebody else's implementation.

    Raises:
        ValueError: a name is taken, or none is given.
    """

    def register(kind: C) -> C:
        require(len(names) > 0, "names", names, "give the model_type of its checkpoints")
        taken = {name for one in FAMILIES if one.when is when for name in one.names}
        for name in names:
            require(name not in taken, "names", name, "a family of this name is registered already")
        for name in embedded or {}:
            require(name not in EMBEDDED, "embedded", name, "a model of this name is there already")
        FAMILIES.append(Family(kind, names, when, checkpoints, recorded, second))
        EMBEDDED.update(embedded or {})
        return kind

    return register


def list_families() -> list[str]:
    """Names of all registered families, in the order of their registration."""
    known = [name for family in FAMILIES for name in family.names]
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in known:
            entry.load()
    return list(dict.fromkeys(name for family in FAMILIES for name in family.names))


def find_family(config: Config) -> type[Transformer] | None:
    """The class that a configuration asks for, None if no family has its name.

    An architecture class says more than a model type, and a family with a condition that holds more
    than one without.
    """
    list_families()  # so that all are registered
    for name in reversed(names_of(config)):
        fits = [one for one in FAMILIES if name in one.names and (not one.when or one.when(config))]
        if fits:
            return min(fits, key=lambda one: one.when is None).kind
    return None


def family_of(config: Config) -> type[Transformer]:
    """The class that a configuration asks for by its `model_type` or `architectures`.

    Raises:
        ValueError: none is registered, with the reason where it is a diffusion model.
    """
    known, kind = list_families(), config.text("model_type")
    listed = ", ".join(known)
    for name in names_of(config):
        reason = None if name in known else NOT_IMPLEMENTED.get(name)
        if reason is not None:
            raise ValueError(
                f"{config.path}: model_type={kind!r} ({name}) is not implemented: {reason}; known "
                f"are {listed}"
            )
    found = find_family(config)
    if found is None:
        near = closest(kind, known) if kind else ""
        raise ValueError(
            f"{config.path}: model_type={kind!r} is not a diffusion language model this package "
            f"knows ({listed}){near}; give other modules to dlmdecode.wrap(module, mask_id=…)"
        )
    return found


def names_of(config: Config) -> list[str]:
    """The model type of a configuration, then its architecture classes."""
    classes = config.get("architectures") or []
    names = [config.text("model_type"), *(classes if isinstance(classes, list) else [classes])]
    return [name for name in names if isinstance(name, str)]
