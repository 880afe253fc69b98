"""Which drafter an argument means."""

from __future__ import annotations

import os
from typing import Any

from dlmdecode.checks import Count, closest, conform, require
from dlmdecode.models.loading import load
from dlmdecode.models.wrap import as_denoiser
from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter
from dlmdecode.speculation.drafters.registry import DRAFTERS


def resolve_drafter(drafter: Any, draft_steps: Any, num_candidates: int) -> Drafter:
    """The drafter that `drafter` names or is; the name of a drafter wins over that of a model.

    Args:
        drafter: as in `speculate`.
        draft_steps, num_candidates: `steps` and `num_candidates` of the `DiffusionDrafter` that a
            model, or the name of one, stands for.

    Raises:
        FileNotFoundError: a name that is neither a drafter's nor a model's.
        ValueError: an object that can draft nothing, such as a bare causal language model; an
            option of the drafter that is wrong; steps for a drafter that has its own.
    """
    steps: int = conform("draft_steps", draft_steps, Count)
    if isinstance(drafter, (str, os.PathLike)):
        drafter = named(drafter)
    if (model := as_denoiser(drafter)) is not None:
        return DiffusionDrafter(model, steps, num_candidates)
    own_class = isinstance(drafter, Drafter)
    usable = own_class or (
        not isinstance(drafter, type) and callable(getattr(drafter, "draft", None))
    )
    require(
        usable,
        "drafter",
        type(drafter).__name__,
        "it is no diffusion language model and has no draft(prefix, length); give a name, what "
        "dlmdecode.load or dlmdecode.wrap give, an object of a subclass of "
        "dlmdecode.speculation.Drafter, or CausalDrafter(model) for a causal one",
    )
    own = f"{type(drafter).__name__} has its own; it is for a diffusion model as drafter"
    require(steps == 1, "draft_steps", steps, own)
    return drafter if own_class else ForeignDrafter(drafter)


class ForeignDrafter(Drafter):
    """Any object with `draft(prefix, length)`, and with what it has of a drafter's attributes."""

    searched = True  # who does not say may return a `TopM`

    def __init__(self, inner: Any):
        self.inner = inner
        for name in ("tokenizer", "vocab_size", "eos_ids", "mask_id", "searched"):
            if hasattr(inner, name):  # it derives from nothing, so that it may lack them
                setattr(self, name, getattr(inner, name))

    def draft(self, prefix: list[int], length: int) -> Any:
        return self.inner.draft(prefix, length)

    def reset(self) -> None:
        if hasattr(self.inner, "reset"):
            self.inner.reset()


def named(name: str | os.PathLike[str]) -> Any:
    """The drafter of "NAME,option=value", else the model of a name, a hub id or a folder."""
    known, first = DRAFTERS.names(), os.fspath(name).partition(",")[0].strip()
    if isinstance(name, str) and first in known:
        return DRAFTERS.build(name)
    try:
        return load(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"drafter={os.fspath(name)!r} is none of the drafters {', '.join(map(repr, known))}, "
            f"nor is it a model: {error}{closest(first, known)}"
        ) from error
