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

from collections.abc import Callable
from typing import Any, TypeVar

from dlmdecode.checks import require
from dlmdecode.decoding.forward import Forward
from dlmdecode.models.protocol import Denoiser
from dlmdecode.plugins import Registry

Policy = Callable[..., Forward]
P = TypeVar("P", bound=Policy)
REGISTRY: Registry[Forward] = Registry("cache", "dlmdecode.caches", given=1)


def register_cache(
    name: str, *, paper: str = "", recorded: tuple[str, ...] = (), second: tuple[str, ...] = ()
) -> Callable[[P], P]:
    """Make a cache policy available under `name`: a class or function `(model, **options)`.

    Args:
        name: what users write; letters, digits and underscores.
        paper: arXiv id or other source, for the listing.
        recorded: methods of `tests/golden/cases`, runs of the authors' own code.
        second: those recorded from somebody else's implementation.

    Raises:
        ValueError: the name is taken, or is no identifier.
    """
    return REGISTRY.register(name, paper, recorded, second)


def list_caches() -> list[str]:
    """Names of all registered cache policies, sorted."""
    return REGISTRY.names()


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
    entry, options = REGISTRY.parse(cache)
    return entry.make, options
