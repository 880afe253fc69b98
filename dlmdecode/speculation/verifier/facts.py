"""What a transformers model says of itself. The classes are foreign, and a fact may be missing.

`getattr` here asks for what only some configurations and wrappers have.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from dlmdecode.checks import as_numbers, require


def causal_model(model: Any) -> Any:
    """The transformers model inside adapters and other wrappers; None if there is none."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    return next((one for one in modules if isinstance(one, PreTrainedModel)), None)


def eos_ids(model: Any) -> tuple[int, ...]:
    """The end-of-sequence ids of a model's generation_config.

    Raises `ValueError` for what is none.
    """
    value = as_numbers(model.generation_config.eos_token_id)
    ids = () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)
    usable = all(type(one) is int and one >= 0 for one in ids)
    fix = "the verifier's generation_config has it: give ids of 0 or more there, or None"
    require(usable, "eos_token_id", value, fix)
    return ids


def max_positions(model: Any) -> int | None:
    """Positions that the model can address; models with relative positions need not say."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None)


def switch_lengths(model: Any) -> list[int]:
    """Text lengths after which the model turns to other rotary frequencies (longrope), sorted."""
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}  # models without rotation have none
    name = "original_max_position_embeddings"  # of the rotation, or of old Phi-3 configurations
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]
    lengths = [kind.get(name) for kind in kinds if kind.get("rope_type") == "longrope"]
    return sorted({length for length in (*lengths, getattr(config, name, None)) if length})


def generates(model: Any) -> bool:
    """Whether it has a `generate` and its configuration: a model without a head has neither."""
    return bool(getattr(model, "generate", None) and getattr(model, "generation_config", None))


def is_decoder(model: Any) -> bool:
    """Whether an encoder's configuration turns it into a decoder."""
    return getattr(model.config, "is_decoder", False)


def is_compiled(model: Any) -> bool:
    """Whether it is torch.compile's wrapper, whose `generate` is that of the model inside."""
    return hasattr(model, "_orig_mod")


def has_virtual_tokens(model: Any) -> bool:
    """Whether it is a peft model with a learnt prompt."""
    adapter = getattr(model, "active_peft_config", None)
    return adapter is not None and adapter.is_prompt_learning
