"""Prompts in all the forms that users have them, as a list of 1-D id tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlmdecode.checks import plain, require
from dlmdecode.prompts.chat import chat_ids, is_sequence, text_ids

BESIDE_IDS = ("attention_mask", "token_type_ids", "special_tokens_mask", "offset_mapping", "length")


def encode_prompts(
    prompt: Any,
    attention_mask: Any,
    model: Any,
    *,
    may_be_empty: bool = False,
    infill: bool = False,
) -> list[Tensor]:
    """Ids of each prompt on the model's device.

    Args:
        prompt: text or a list of texts (tokenized as they are), chat messages or a list of those
            (the tokenizer's chat template), ids (P,) or (B, P) as a tensor, an array or lists, a
            list of 1-D tensors or arrays, or a mapping with "input_ids" (what a tokenizer returns).
        attention_mask: (B, P) beside ids, 1 for a prompt's tokens, in any of these forms; needed
            for a (B, P) tensor or array with B > 1.
        may_be_empty: an empty prompt becomes the tokenizer's BOS; without one it stays empty where
            the model's logits are not shifted, since they need a token before the first position.
        infill: each prompt has mask tokens, in place of what is to be written.

    Raises:
        ValueError: empty prompts, unless they may be, a batch without mask, a mask with holes, ids
            outside the vocabulary, mask tokens, text without a tokenizer, bytes, lone surrogates,
            messages that the chat template does not take.
    """
    if isinstance(prompt, Mapping):
        prompt, attention_mask = from_mapping(prompt, attention_mask)
    prompt = from_array(prompt)
    if attention_mask is None:
        rows = [to_ids(one, model) for one in split(prompt)]
    else:
        rows = masked_rows(prompt, attention_mask)
        may_be_empty = False  # a row of zeros is no prompt
    if may_be_empty:
        rows = [row if len(row) else beginning(model) for row in rows]
    for index, row in enumerate(rows):
        if len(row) or not may_be_empty:
            check_ids(row, index, model)
            check_masks(row, index, model, infill)
    return [row.to(model.device, torch.int64) for row in rows]


def beginning(model: Any) -> Tensor:
    """The ids (0 or 1,) that a text without a prompt begins with."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    fix = "this model needs a token before the text, and its tokenizer has no BOS: give ids"
    require(bos is not None or model.shift == 0, "prompt", "", fix)
    ids = [] if bos is None or bos == model.mask_id else [bos]
    return torch.tensor(ids, dtype=torch.int64, device="cpu")


def from_array(value: Any) -> Any:
    """An array of integers as a tensor, another one as a list; what is no array as it is."""
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    integers = value.dtype.kind in "iu"
    return torch.from_numpy(value.astype(np.int64)) if integers else value.tolist()


def split(prompt: Any) -> list[Any]:
    """The single prompts of whatever the user gave."""
    if isinstance(prompt, Tensor) and prompt.dim() != 1:
        return rows_of(prompt)
    if isinstance(prompt, (str, Tensor)) or is_chat(prompt) or is_ids(prompt):
        return [prompt]
    known = is_sequence(prompt) and len(prompt) > 0
    require(known, "prompt", prompt, f"{read(prompt)}, or a non-empty list of these")
    return list(prompt)


def rows_of(prompt: Tensor) -> list[Tensor]:
    """The prompt of a (1, P) tensor."""
    shape = tuple(prompt.shape)
    require(prompt.dim() == 2 and len(prompt) > 0, "prompt", shape, "give ids (P,) or (B, P)")
    require(
        len(prompt) == 1,
        "prompt",
        shape,
        "a batch needs attention_mask= (1 for a prompt's tokens), or a list of 1-D tensors; "
        "padding cannot be told from the ids",
    )
    return [prompt[0]]


def is_chat(prompt: Any) -> bool:
    return is_sequence(prompt) and bool(prompt) and isinstance(prompt[0], Mapping)


def is_ids(prompt: Any) -> bool:
    return is_sequence(prompt) and bool(prompt) and isinstance(plain(prompt[0]), int)


def to_ids(prompt: Any, model: Any) -> Tensor:
    """Ids (P,) of one prompt."""
    prompt = from_array(prompt)
    if isinstance(prompt, Tensor):
        require(prompt.dim() == 1, "prompt", tuple(prompt.shape), "each tensor of a list is 1-D")
        return prompt
    if is_ids(prompt) or (is_sequence(prompt) and not len(prompt)):
        return listed(prompt)
    require(isinstance(prompt, str) or is_chat(prompt), "prompt", prompt, read(prompt))
    require(model.tokenizer is not None, "prompt", prompt, "this model has no tokenizer: give ids")
    text = isinstance(prompt, str)
    ids = text_ids(prompt, model) if text else chat_ids(prompt, model.tokenizer)
    return torch.tensor(ids, dtype=torch.int64, device="cpu")


def read(prompt: Any) -> str:
    """What to give instead of something that is no prompt."""
    if isinstance(prompt, (bytes, bytearray)):
        return "these are bytes: decode them, as in prompt.decode('utf-8')"
    if is_sequence(prompt) and not len(prompt):
        return "it is empty; a prompt has at least one token"
    return "give text, chat messages or token ids"


def listed(ids: Sequence[Any]) -> Tensor:
    """Ids of any integer type as a tensor."""
    values = [plain(id) for id in ids]
    whole = all(isinstance(id, int) and not isinstance(id, bool) for id in values)
    require(whole, "prompt", ids, "give integer token ids")
    require(all(-(2**63) <= id < 2**63 for id in values), "prompt", ids, "ids have 64 bits")
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def from_mapping(prompt: Mapping[str, Any], attention_mask: Any) -> tuple[Any, Any]:
    """Ids and mask of what a tokenizer returns."""
    fix = "a mapping needs 'input_ids'; chat messages are a list"
    require("input_ids" in prompt, "prompt", list(prompt), fix)
    for name in prompt:
        known = name == "input_ids" or name in BESIDE_IDS
        require(known, f"prompt[{name!r}]", "given", "token ids are all that is read: leave it out")
    own = prompt.get("attention_mask")
    twice = attention_mask is not None and own is not None
    require(not twice, "attention_mask", attention_mask, "the prompt brings its own; give one")
    return prompt["input_ids"], attention_mask if own is None else own


def masked_rows(prompt: Any, attention_mask: Any) -> list[Tensor]:
    """The ids of each row where its mask is 1."""
    single = is_ids(prompt) or (isinstance(prompt, Tensor) and prompt.dim() == 1)
    rows = [prompt] if single else prompt
    batch = isinstance(rows, Tensor) or is_sequence(rows)
    rows = [from_array(row) for row in rows] if batch else []
    ids = bool(rows) and all(isinstance(row, Tensor) or is_ids(row) for row in rows)
    require(ids, "attention_mask", "given", "it goes with token ids (B, P) only")
    tensors = [row if isinstance(row, Tensor) else listed(row) for row in rows]
    masks = nested(attention_mask)
    masks = masks if isinstance(masks, list) and masks and isinstance(masks[0], list) else [masks]
    widths = [len(mask) if isinstance(mask, list) else 0 for mask in masks]
    wanted = [row.shape[0] if row.dim() == 1 else -1 for row in tensors]
    fix = f"give the shape of prompt, ({len(wanted)}, {max(wanted)})"
    require(widths == wanted, "attention_mask", (len(widths), max(widths)), fix)
    return [visible(row, mask) for row, mask in zip(tensors, masks, strict=True)]


def visible(row: Tensor, mask: list[Any]) -> Tensor:
    """The tokens of a padded row."""
    require(all(one in (0, 1) for one in mask), "attention_mask", mask, "give ones and zeros")
    at = [i for i, one in enumerate(mask) if one]
    run = not at or at[-1] - at[0] + 1 == len(at)
    require(run, "attention_mask", mask, "a prompt is one run of ones")
    return row[at[0] : at[-1] + 1] if at else row[:0]


def nested(value: Any) -> Any:
    """Tensors, arrays and sequences as lists of Python numbers."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.tolist()
    return [nested(one) for one in value] if is_sequence(value) else plain(value)


def check_ids(row: Tensor, index: int, model: Any) -> None:
    require(len(row) > 0, "prompt", f"row {index}", "it is empty; a prompt has at least one token")
    integral = not row.is_floating_point() and not row.is_complex() and row.dtype != torch.bool
    require(integral, "prompt", f"row {index} of {row.dtype}", "give integer token ids")
    fix = "give ids on a device that holds values"
    require(row.device.type != "meta", "prompt", f"row {index} on meta", fix)
    size = model.vocab_size
    low, high = map(int, row.to(torch.int64).aminmax())
    inside = low >= 0 and (size is None or high < size)
    known = "0 or more" if size is None else f"0 to {size - 1}"
    require(inside, "prompt", f"row {index}: id {low if low < 0 else high}", f"ids are {known}")


def check_masks(row: Tensor, index: int, model: Any, infill: bool) -> None:
    """Refuse masks in a prompt; where they are to be filled in, one that has none."""
    where = (row == model.mask_id).nonzero()[:, 0].tolist()
    found = f"row {index}: mask token {model.mask_id} at {where[:5]}"
    if not infill:
        fix = (
            "a prompt is not written to, so a mask in it would stay; remove it, or use "
            "generate(…, infill=True)"
        )
        require(not where, "prompt", found, fix)
        return
    fix = f"nothing is to be written there: give token ids with the mask token {model.mask_id}"
    require(bool(where), "prompt", f"row {index}", fix)
    fix = "this model needs a token before a gap: put text first"
    require(where[0] > 0 or model.shift == 0, "prompt", found, fix)


def check_context(prompts: list[Tensor], length: int, model: Any) -> None:
    """Refuse texts of `length` tokens after prompts (P,) that `model.max_length` has no room for.

    Raises:
        ValueError: the longest prompt, or it and its text, are longer.
    """
    longest, limit = max(map(len, prompts)), model.max_length
    fix = f"the model addresses {limit} positions, and none is left for max_new_tokens={length}: "
    fix += f"give at most {(limit or 0) - length}"
    require(limit is None or longest < limit, "prompt", f"{longest} tokens", fix)
    require(
        limit is None or longest + length <= limit,
        "max_new_tokens",
        length,
        f"the longest prompt has {longest} tokens and the model addresses {limit} positions; "
        f"give at most {(limit or 0) - longest}",
    )
