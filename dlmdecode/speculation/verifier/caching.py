"""Key/value caches that can be rewound, in the words of whatever transformers is installed.

The one place that knows what transformers renamed and changed since 5.0: the cache of a forward was
`past_key_values` before 5.24, the inputs of a step were cut by `cache_position` before 5.1, sliding
windows cannot be rewound before 5.16, no cache says whether it can be before 5.20, and candidate
generators of 5.0 are told which call is their first.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMixin

from dlmdecode.checks import require

STEP = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = "cache" if "cache" in STEP else "past_key_values"
RECORDS = hasattr(Cache, "activate_past_recording")  # from 5.16 on
NUMBERS = "_prepare_position_ids_for_generation"  # which models of images have their own of
UNFIT = "it has no key/value cache that can be rewound, which rejected drafts need"


def check_cached(model: Any, role: str) -> None:
    """Refuse a transformers model whose forward takes no cache of keys and values."""
    cached = takes(model, CACHE) and not model._is_stateful
    cached = cached and model._supports_default_dynamic_cache()
    require(cached, role, type(model).__name__, UNFIT)


def takes(model: Any, name: str) -> bool:
    """Whether the forward of a transformers model has an argument of this name, also where it is
    wrapped in one that hands on whatever it is given."""
    kinds = [inspect.signature(model.forward), *map(inspect.signature, forwards(type(model)))]
    for known in (signature.parameters for signature in kinds):
        if name in known:
            return True
        if not any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in known.values()):
            return False
    return False


def counts(model: Any) -> bool:
    """Whether `generate` numbers the positions, from 0; a model may do otherwise by itself."""
    known = "position_ids" in inspect.signature(model.forward).parameters
    return known and getattr(type(model), NUMBERS, None) is getattr(GenerationMixin, NUMBERS, None)


def forwards(kind: type) -> list[Any]:
    """The forwards of a class and those that it inherits, its own first."""
    return [vars(one)["forward"] for one in kind.__mro__ if "forward" in vars(one)]


def new_cache(model: Any, far: bool = False) -> Any:
    """An empty cache of the model's layers, which `rewind` can shorten.

    Args:
        far: by the positions of several forwards; else by those of the last one.
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if any(cache.is_sliding) and (far or not RECORDS):
        return DynamicCache()  # full layers give the same: the mask has the window
    if RECORDS:
        cache.activate_past_recording()
    return cache


def can_rewind(cache: Any, far: bool = False) -> bool:
    """Whether no layer keeps a state that is no longer known; layers tell once they were used."""
    croppable = getattr(cache, "is_croppable", None)  # from 5.20 on
    if far or croppable is None:
        return all(isinstance(layer, DynamicLayer) for layer in cache.layers)
    return croppable


def rewind(cache: Any, count: int) -> None:
    """Forget the last `count` positions, and what a sliding window recorded to be able to."""
    if count or RECORDS:  # crop(0) empties caches that record nothing
        cache.crop(-count)


def step_inputs(model: Any, ids: Tensor, known: int, cache: Any, **more: Any) -> dict[str, Any]:
    """What `generate` would give the model's forward.

    Args:
        ids: (1, L) the text and its draft.
        known: how many of them the cache holds.

    Returns:
        The arguments of forward. A model may ask for another cache than `cache`, by giving none.
    """
    if "next_sequence_length" in STEP:
        more["next_sequence_length"] = ids.shape[1] - known
    if "cache_position" in STEP:
        more["cache_position"] = torch.arange(known, ids.shape[1], device=ids.device)
    if counts(model):
        more["position_ids"] = torch.arange(ids.shape[1], device=ids.device)[None]
    first = known == 0
    return model.prepare_inputs_for_generation(
        ids, **{CACHE: cache}, use_cache=True, is_first_iteration=first, **more
    )


def drafted_by(generator: Any, ids: Tensor, first: bool) -> Tensor:
    """The text `ids` (1, L) with what a transformers candidate generator drafts, (1, L + k)."""
    told = "is_first_iteration" in inspect.signature(generator.get_candidates).parameters
    return generator.get_candidates(ids, **({"is_first_iteration": first} if told else {}))[0]
