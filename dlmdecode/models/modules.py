"""What a foreign torch module takes, what it gives, and what it says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from torch import Tensor, nn

from dlmdecode.checks import require

REQUIRED, OPTIONAL = True, False
INPUTS = ("input_ids", "attention_mask", "position_ids")
LENGTHS = ("max_position_embeddings", "max_sequence_length", "n_positions", "model_length")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside those that pass calls on and change nothing of what they mean."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif "_orig_mod" in module._modules:  # torch.compile's; its class takes a second to import
            module = module.get_submodule("_orig_mod")
        else:
            return module


def inputs_of(module: nn.Module) -> dict[str, bool]:
    """Which of `INPUTS` a module's call takes, and whether it must be given them."""
    taken = list(inspect.signature(module.forward).parameters.values())
    named = [
        one for one in taken if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    inputs = {one.name: one.default is Parameter.empty for one in named}
    if named and "input_ids" not in inputs and named[0].kind is not Parameter.KEYWORD_ONLY:
        del inputs[named[0].name]  # the tokens, whatever they are called
    for name, required in inputs.items():
        require(
            name in INPUTS or not required,
            "module",
            type(module).__name__,
            f"its call needs {name!r}, and a canvas has only tokens, attention_mask and "
            "position_ids: put a module around it that gives it",
        )
    if len(named) < len(taken) and taken[-1].kind is Parameter.VAR_KEYWORD:
        inputs.setdefault("attention_mask", OPTIONAL)
    return {name: required for name, required in inputs.items() if name in INPUTS}


def logits_of(out: Any, tokens: Tensor, mask_id: int, name: str) -> Tensor:
    """The logits in what a module's call returned; `ValueError` where there are none."""
    if isinstance(out, Mapping):
        logits = out.get("logits")
    elif isinstance(out, Tensor) or hasattr(out, "logits"):
        logits = getattr(out, "logits", out)
    else:
        logits = out[0] if isinstance(out, (tuple, list)) and out else None
    fix = "return logits (N, L, V): a tensor, .logits, ['logits'] or the first of a tuple"
    if not isinstance(logits, Tensor):
        raise ValueError(f"module={name}: its call gave {type(out).__name__} without logits; {fix}")
    fits = logits.dim() == 3 and logits.shape[:2] == tokens.shape and logits.is_floating_point()
    require(fits, "logits", logits, f"{name} was given tokens {tuple(tokens.shape)}; {fix}")
    require(logits.shape[-1] > mask_id, "logits", logits, f"V must reach the mask id {mask_id}")
    return logits.to(tokens.device)


def vocab_size_of(module: nn.Module) -> int | None:
    return stated(module, "vocab_size")


def max_length_of(module: nn.Module) -> int | None:
    """Positions: rows of a table of them, or what the config says."""
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            unused = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa's
            return part.num_embeddings - unused
    return stated(module, *LENGTHS)


def stated(module: nn.Module, *names: str) -> int | None:
    """The first of these that the config of the module, or of one inside it, states."""
    for part in module.modules():
        for name in names:
            value = getattr(getattr(part, "config", None), name, None)
            if isinstance(value, int) and value >= 1:
                return value
    return None
