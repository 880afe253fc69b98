"""Any torch module whose call gives logits, as a model that the loop can decode."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode.checks import plain, require
from dlmdecode.models.modules import REQUIRED, facts_of, inputs_of, logits_of, unwrapped
from dlmdecode.models.protocol import Denoiser, KeyValueHook


class Wrapped(Denoiser):
    """See `wrap`. The module recomputes whole canvases: it has no key/value hook."""

    supports_cache = False

    def __init__(
        self,
        module: nn.Module,
        mask_id: int,
        eos_ids: tuple[int, ...],
        tokenizer: Any,
        shift: int,
        vocab_size: int | None,
        max_length: int | None,
    ):
        self.module, self.mask_id, self.eos_ids = module, mask_id, eos_ids
        self.tokenizer, self.shift = tokenizer, shift
        self.vocab_size, self.max_length = vocab_size, max_length
        facts = facts_of(unwrapped(module))
        self.family, self.folder = facts.family, facts.folder
        self.block_length = facts.block_length
        self.inputs = inputs_of(unwrapped(module))
        self.takes_positions = "position_ids" in self.inputs

    def pattern(self, query: Tensor, key: Tensor) -> None:
        """None: the module's call has whole canvases, and limits its attention itself."""

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters(), torch.empty(0, device="cpu")).device

    def encode(
        self,
        tokens: Tensor,
        position: Tensor,
        attend: Tensor | None = None,
        cache: KeyValueHook | None = None,
    ) -> Tensor:
        """The module's logits (N, L, V); `head` passes them on.

        Where rows end at different places, a module without `attention_mask` is called once for
        each length, so that no row sees another's padding.
        """
        if attend is None or "attention_mask" in self.inputs:
            return self.logits(tokens, position, attend)
        stop = attend[:, 0, 0].expand(tokens.shape).sum(1)
        rows = {end: (stop == end).nonzero()[:, 0] for end in stop.unique().tolist()}
        parts = [self.logits(tokens[at, :end], position[at, :end]) for end, at in rows.items()]
        whole = parts[0].new_zeros(*tokens.shape, parts[0].shape[-1])
        for (end, at), part in zip(rows.items(), parts, strict=True):
            whole[at, :end] = part
        return whole

    def logits(self, tokens: Tensor, position: Tensor, attend: Tensor | None = None) -> Tensor:
        """One call of the module, with as much as it takes."""
        given: dict[str, Tensor] = {}
        gaps = int(position.max()) >= position.shape[1]
        fix = "the module's call takes no position_ids: leave no gaps in what it sees"
        require(not gaps or self.takes_positions, "position", position, fix)
        if gaps or self.inputs.get("position_ids") is REQUIRED:
            given["position_ids"] = position
        if attend is not None:
            given["attention_mask"] = attend[:, 0, 0].expand(tokens.shape).long()
        elif self.inputs.get("attention_mask") is REQUIRED:
            given["attention_mask"] = torch.ones_like(tokens)
        if "input_ids" in self.inputs:
            out = self.module(input_ids=tokens, **given)
        else:
            out = self.module(tokens, **given)
        logits = logits_of(out, tokens, self.mask_id, type(unwrapped(self.module)).__name__)
        fix = f"V must reach the vocabulary, {self.vocab_size} ids: wrap a model with its head"
        narrow = self.vocab_size is not None and logits.shape[-1] < self.vocab_size
        require(not narrow, "logits", logits, fix)
        return logits[..., : self.vocab_size]  # a padded head has more than there are ids

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def wrap(
    module: nn.Module,
    mask_id: int | None = None,
    eos_ids: int | Iterable[int] | None = None,
    tokenizer: Any = None,
    shift: bool | None = None,
    vocab_size: int | None = None,
    max_length: int | None = None,
) -> Wrapped:
    """Make any masked-diffusion module decodable.

    What is not given comes from the module's config, or from the native model where the module is
    one that was compiled or made parallel.

    Args:
        module: called as `module(tokens)` with tokens (N, L) int64, and with `attention_mask=`
            (N, L) where a batch is ragged; returns logits (N, L, V): itself, as `.logits`, as
            `["logits"]`, or as the first of a tuple. Where it takes no mask, rows of one length
            are called together.
        mask_id: id of the mask token; None takes `module.config.mask_token_id`.
        eos_ids: end-of-sequence ids, the first one fills what an early stop leaves open; None takes
            `module.config.eos_token_id`.
        tokenizer: for text prompts and `out.texts`.
        shift: True where the logits at position i predict token i + 1 (Dream); None is False for a
            foreign module.
        vocab_size: ids that the module takes; None takes its config's, and no limit without one.
        max_length: positions that it takes; None as for `vocab_size`.

    Raises:
        ValueError: no mask or EOS id, neither given nor in the module's config; an id outside the
            vocabulary; a module whose call needs something else than tokens.
    """
    require(isinstance(module, nn.Module), "module", type(module).__name__, "give a torch module")
    facts = facts_of(unwrapped(module))
    mask_id = facts.mask_id if mask_id is None else mask_id
    eos_ids = facts.eos_ids if eos_ids is None else eos_ids
    tokenizer = facts.tokenizer if tokenizer is None else tokenizer
    speaks = tokenizer is None or hasattr(tokenizer, "decode")
    require(speaks, "tokenizer", tokenizer, "give a tokenizer, as transformers loads it")
    require(mask_id is not None, "mask_id", mask_id, "name the id of the mask token")
    require(eos_ids is not None, "eos_ids", eos_ids, "name at least one end-of-sequence id")
    size = facts.vocab_size if vocab_size is None else whole("vocab_size", vocab_size)
    length = facts.max_length if max_length is None else whole("max_length", max_length)
    (mask,) = ids_of("mask_id", [mask_id], size)
    eos_ids = plain(eos_ids)
    ends = ids_of("eos_ids", eos_ids if isinstance(eos_ids, Iterable) else [eos_ids], size)
    require(len(ends) > 0 and mask not in ends, "eos_ids", ends, "give ids other than the mask's")
    with contextlib.suppress(NotImplementedError):  # an exported module's mode is built in
        module.eval()
    return Wrapped(module, mask, ends, tokenizer, resolve_shift(module, shift), size, length)


def resolve_shift(module: nn.Module, shift: bool | None) -> int:
    """0 or 1; a native model knows its own, and a module around one has to say."""
    shift = plain(shift)
    known = isinstance(shift, (int, NoneType)) and shift in (None, 0, 1)
    require(known, "shift", shift, "give True or False")
    facts = facts_of(unwrapped(module))
    if facts.shift is not None:
        fix = f"{facts.family} has shift={bool(facts.shift)}"
        require(shift in (None, bool(facts.shift)), "shift", shift, fix)
        return int(facts.shift)
    shifted = any(part.shift for part in module.modules() if isinstance(part, Denoiser))
    fix = "it is built around a model whose logits are shifted: say whether its own are"
    require(shift is not None or not shifted, "shift", shift, fix)
    return int(bool(shift))


def as_denoiser(model: Any) -> Denoiser | None:
    """What the loop calls for a model, or None for what has to be wrapped by name.

    A native model that was compiled or made parallel, or whose call its owner hooked or replaced,
    is called as a whole, as its owner meant it: `encode` and `head` alone would pass that by.
    """
    if isinstance(model, nn.Module):
        around = unwrapped(model) is not model or changed(model)
        if around and isinstance(unwrapped(model), Denoiser):
            return wrap(model)
    if not isinstance(model, Denoiser):
        return None
    fix = "it names no mask token: load it, or set its mask_id and eos_ids"
    require(model.mask_id >= 0, "model", type(model).__name__, fix)
    fix = "it is on the meta device, which holds no values: load its weights"
    require(model.device.type != "meta", "model", type(model).__name__, fix)
    return model


def changed(model: nn.Module) -> bool:
    """Whether a call of this very module is another than its class's."""
    hooked = model._forward_pre_hooks or model._forward_hooks
    return bool(hooked) or model._compiled_call_impl is not None or "forward" in vars(model)


def ids_of(name: str, ids: Iterable[Any], size: int | None) -> tuple[int, ...]:
    """Ids as ints, each checked to be one of the vocabulary."""
    known = "0 or more" if size is None else f"0 to {size - 1}"
    found = []
    for id in ids:
        number = integer(id)
        inside = number is not None and number >= 0 and (size is None or number < size)
        require(inside, name, id, f"give whole numbers, {known}")
        found.append(number or 0)
    return tuple(found)


def whole(name: str, value: Any) -> int:
    number = integer(value) or 0
    require(number >= 1, name, value, "give a whole number, at least 1, or None")
    return number


def integer(value: Any) -> int | None:
    """The whole number that Python's, numpy's or torch's is; True and False are none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
