"""Prompts in all the forms that users have them, as a list of 1-D id tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlmdecode.chat_template import render
from dlmdecode.checks import require


def encode_prompts(prompt: Any, attention_mask: Tensor | None, model: Any) -> list[Tensor]:
    """Ids of each prompt on the model's device.

    Args:
        prompt: a string or a list of strings (tokenized as they are), chat messages or a list of
            those (the tokenizer's chat template), a LongTensor (P,) or (B, P), a list of 1-D
            LongTensors or lists of ids, or a mapping with "input_ids" (what a tokenizer returns).
        attention_mask: (B, P), 1 for a prompt's tokens; needed for a (B, P) tensor with B > 1.

    Raises:
        ValueError: empty prompts, a batch without mask, a mask with holes, ids outside the
            vocabulary, mask tokens, text without a tokenizer.
    """
    if isinstance(prompt, Mapping):
        require("input_ids" in prompt, "prompt", list(prompt), "a mapping needs 'input_ids'")
        prompt, attention_mask = from_mapping(prompt, attention_mask)
    if isinstance(prompt, Tensor):
        rows = from_tensor(prompt, attention_mask)
    else:
        require(
            attention_mask is None, "attention_mask", "given", "it goes with a (B, P) tensor only"
        )
        rows = [to_ids(one, model) for one in split(prompt)]
    for index, row in enumerate(rows):
        check_ids(row, index, model)
    return [row.to(model.device, torch.int64) for row in rows]


def split(prompt: Any) -> list[Any]:
    """The single prompts of whatever the user gave."""
    if isinstance(prompt, str) or is_chat(prompt) or is_ids(prompt):
        return [prompt]
    is_list = isinstance(prompt, Sequence) and len(prompt) > 0
    require(
        is_list, "prompt", prompt, "give text, chat messages, ids, or a non-empty list of these"
    )
    return list(prompt)


def is_chat(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], Mapping)


def is_ids(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], int)


def to_ids(prompt: Any, model: Any) -> Tensor:
    if isinstance(prompt, Tensor):
        require(prompt.dim() == 1, "prompt", tuple(prompt.shape), "each tensor of a list is 1-D")
        return prompt
    if is_ids(prompt):
        return torch.tensor(prompt, device="cpu")
    text = isinstance(prompt, str)
    require(text or is_chat(prompt), "prompt", prompt, "give text, chat messages or token ids")
    require(model.tokenizer is not None, "prompt", prompt, "this model has no tokenizer: give ids")
    if text:
        return torch.tensor(model.tokenizer(prompt)["input_ids"], dtype=torch.int64, device="cpu")
    rendered = render(model.tokenizer, prompt)
    encoded = model.tokenizer(rendered, add_special_tokens=False)
    return torch.tensor(encoded["input_ids"], dtype=torch.int64, device="cpu")


def from_mapping(prompt: Mapping[str, Any], attention_mask: Any) -> tuple[Any, Any]:
    """Ids and mask of what a tokenizer returns; the mask of plain lists is applied here."""
    ids, attention_mask = prompt["input_ids"], prompt.get("attention_mask", attention_mask)
    if isinstance(ids, Tensor) or attention_mask is None or not ids:
        return ids, attention_mask
    if is_ids(ids):
        ids, attention_mask = [ids], [attention_mask]
    pairs = [zip(row, mask, strict=True) for row, mask in zip(ids, attention_mask, strict=True)]
    return [torch.tensor([id for id, kept in pair if kept], device="cpu") for pair in pairs], None


def from_tensor(prompt: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
    if prompt.dim() == 1 and attention_mask is None:
        return [prompt]
    shape = tuple(prompt.shape)
    require(
        prompt.dim() == 2 and len(prompt) > 0, "prompt", shape, "give a (P,) or (B, P) LongTensor"
    )
    if attention_mask is None:
        require(
            len(prompt) == 1,
            "prompt",
            shape,
            "a batch needs attention_mask= (1 for a prompt's tokens), or a list of 1-D tensors; "
            "padding cannot be told from the ids",
        )
        return [prompt[0]]
    same = tuple(attention_mask.shape) == shape
    require(
        same, "attention_mask", tuple(attention_mask.shape), f"give the shape of prompt, {shape}"
    )
    rows = []
    for ids, mask in zip(prompt, attention_mask.bool(), strict=True):
        kept = mask.nonzero()[:, 0]
        whole = len(kept) == 0 or int(kept[-1] - kept[0]) + 1 == len(kept)
        require(whole, "attention_mask", mask.int().tolist(), "a prompt is one run of ones")
        rows.append(ids[mask])
    return rows


def check_ids(row: Tensor, index: int, model: Any) -> None:
    require(len(row) > 0, "prompt", f"row {index}", "it is empty; a prompt has at least one token")
    integral = not row.is_floating_point() and row.dtype != torch.bool
    require(integral, "prompt", f"row {index} of {row.dtype}", "give integer token ids")
    size = getattr(model, "vocab_size", None)
    low, high = int(row.min()), int(row.max())
    inside = low >= 0 and (size is None or high < size)
    known = "0 or more" if size is None else f"0 to {size - 1}"
    require(inside, "prompt", f"row {index}: id {low if low < 0 else high}", f"ids are {known}")
    where = (row == model.mask_id).nonzero()[:, 0].tolist()
    require(
        not where,
        "prompt",
        f"row {index}: mask token {model.mask_id} at {where[:5]}",
        "a prompt is not written to, so a mask in it would stay; remove it",
    )
