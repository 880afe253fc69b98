"""What a foreign torch module takes, what it gives, and what it says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dlmdecode.checks import require
from dlmdecode.models.protocol import Denoiser

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
    taken = parameters_of(module)
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
    if taken and taken[-1].kind is Parameter.VAR_KEYWORD:
        # they reach a module inside that takes the mask, or are dropped
        parts = [part for part in module.modules() if part is not module]
        if any(one.name == "attention_mask" for part in parts for one in parameters_of(part)):
            inputs.setdefault("attention_mask", OPTIONAL)
    return {name: required for name, required in inputs.items() if name in INPUTS}


def parameters_of(module: nn.Module) -> list[Parameter]:
    """Those of a module's call; none of a traced or scripted one, or where there is no call."""
    forward = getattr(module, "forward", None)
    try:
        return list(inspect.signature(forward).parameters.values()) if forward else []
    except ValueError:
        return []


def logits_of(out: Any, tokens: Tensor, mask_id: int, name: str) -> Tensor:
    """The logits in what a module's call returned; `ValueError` where there are none."""
    if isinstance(out, Mapping):
        logits = out.get("logits")
    elif isinstance(out, Tensor):
        logits = out
    elif hasattr(out, "logits"):  # a foreign output class of any name
        logits = out.logits
    else:
        logits = out[0] if isinstance(out, (tuple, list)) and out else None
    fix = "return logits (N, L, V): a tensor, .logits, ['logits'] or the first of a tuple"
    if not isinstance(logits, Tensor):
        raise ValueError(f"module={name}: its call gave {type(out).__name__} without logits; {fix}")
    fits = logits.dim() == 3 and logits.shape[:2] == tokens.shape and logits.is_floating_point()
    if not fits:
        given = f"{logits.dtype} {tuple(logits.shape)} on {logits.device}"
        raise ValueError(f"logits={given}: {name} was given tokens {tuple(tokens.shape)}; {fix}")
    require(logits.shape[-1] > mask_id, "logits", logits, f"V must reach the mask id {mask_id}")
    return logits.to(tokens.device)


@dataclass(frozen=True)
class Facts:
    """What a module says of itself; None where it says nothing."""

    mask_id: Any = None
    eos_ids: Any = None
    tokenizer: Any = None
    shift: bool | None = None
    vocab_size: int | None = None
    max_length: int | None = None
    block_length: int | None = None
    family: str | None = None
    folder: Path | None = None  # where it was loaded from


def facts_of(module: nn.Module) -> Facts:
    """A native model's own, or what the config of a foreign module states."""
    if isinstance(module, Denoiser):
        return Facts(
            mask_id=module.mask_id,
            eos_ids=module.eos_ids,
            tokenizer=module.tokenizer,
            shift=bool(module.shift),
            vocab_size=module.vocab_size,
            max_length=module.max_length,
            block_length=module.block_length,
            family=module.family,
            folder=module.folder,
        )
    config = config_of(module)
    return Facts(
        mask_id=stated(config, "mask_token_id"),
        eos_ids=stated(config, "eos_token_id"),
        vocab_size=stated_within(module, "vocab_size"),
        max_length=num_positions(module) or stated_within(module, *LENGTHS),
    )


def num_positions(module: nn.Module) -> int | None:
    """Rows of a table of positions, less those that RoBERTa's kind has before the first."""
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    return None


def config_of(module: nn.Module) -> Any:
    """The config of a foreign module, which may have none."""
    return getattr(module, "config", None)


def stated(config: Any, name: str) -> Any:
    """A field of a foreign config, which is an object or a mapping and has any fields, or None."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def stated_within(module: nn.Module, *names: str) -> int | None:
    """The first of these that the config of the module, or of one inside it, states."""
    for part in module.modules():
        for name in names:
            value = stated(config_of(part), name)
            if isinstance(value, int) and value >= 1:
                return value
    return None
