"""Which drafter an argument means."""

from __future__ import annotations

import inspect
from typing import Any

from dlmdecode.checks import Count, conform, require
from dlmdecode.models.wrap import as_denoiser
from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter


def resolve_drafter(drafter: Any, draft_steps: Any, num_candidates: int) -> Drafter:
    """The drafter that `drafter` names or is.

    Raises:
        ValueError: an object that can draft nothing, such as a bare causal language model; steps
            for a drafter that has its own.
    """
    steps: int = conform("draft_steps", draft_steps, Count)
    if isinstance(drafter, str) or hasattr(drafter, "__fspath__"):
        from dlmdecode.models.loading import load

        drafter = load(drafter)
    if (model := as_denoiser(drafter)) is not None:
        return DiffusionDrafter(model, steps, num_candidates)
    usable = callable(getattr(drafter, "draft", None)) and not inspect.isclass(drafter)
    require(
        usable,
        "drafter",
        type(drafter).__name__,
        "it is no diffusion language model and has no draft(prefix, length); give what "
        "dlmdecode.load or dlmdecode.wrap give, or CausalDrafter(model) for a causal one",
    )
    own = f"{type(drafter).__name__} has its own; it is for a diffusion model as drafter"
    require(steps == 1, "draft_steps", steps, own)
    return drafter
