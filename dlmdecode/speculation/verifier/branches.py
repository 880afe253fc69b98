"""One forward over trees of tokens: who sees whom, and whether a model computes it.

A node sees its text, its ancestors and itself, and stands where it would stand behind them alone.
Shapes: **B** texts, **W** new positions of the longest of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dlmdecode.speculation.tree import Draft

MASKED = ("sdpa", "eager")  # attention that takes a mask of any shape
TRIED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
PROBE = Draft([1, 2, 0], [-1, -1, 1])
CLOSE = 0.1


class Block(NamedTuple):
    """What one forward reads of a text: `rest` tokens after the `known` ones, then a draft."""

    known: int
    rest: int  # at least 1
    draft: Draft

    def __len__(self) -> int:
        return self.rest + len(self.draft)

    @property
    def position(self) -> list[int]:
        length = self.known + self.rest
        return [*range(self.known, length), *(length + depth for depth in self.draft.depth)]


def tree_mask(blocks: Sequence[Block], columns: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, W, columns + W): 0 where a query sees a key, else the lowest number.

    Of each text the first `known` of the `columns` before are its own; its block is at the end of
    the W new ones, as wide as the longest. What stands before a block sees itself alone.
    """
    width = max(map(len, blocks))
    mask = np.full((len(blocks), width, columns + width), torch.finfo(dtype).min, np.float32)
    for row, block in zip(mask, blocks, strict=True):
        pad = width - len(block)
        before, own = np.arange(pad), row[pad:, columns + pad :]
        row[before, columns + before] = 0
        row[pad:, : block.known] = 0
        own[: block.rest, : block.rest] = np.triu(own[: block.rest, : block.rest], 1)
        own[block.rest :, : block.rest] = 0
        node = own[block.rest :, block.rest :]
        for one, parent in enumerate(block.draft.parent):
            if parent >= 0:
                node[one] = node[parent]
            node[one, one] = 0
    return torch.from_numpy(mask).to(dtype)[:, None]


def tree_inputs(blocks: Sequence[Block], columns: int, model: Any) -> dict[str, Tensor]:
    """What a forward over blocks needs of its own; see `tree_mask`."""
    width = max(map(len, blocks))
    position = [[0] * (width - len(block)) + block.position for block in blocks]
    return {
        "attention_mask": tree_mask(blocks, columns, model.dtype).to(model.device),
        "position_ids": torch.tensor(position, device=model.device),
    }


def move(cache: Any, start: Sequence[int], found: Sequence[Sequence[int]]) -> None:
    """Put the keys and values in the columns `found` of each text side by side, from its `start`
    on; what stands behind them then has no meaning."""
    first = min(map(in_place, start, found))
    size = max(map(len, found))
    if first == size:
        return
    layers = [layer for layer in cache.layers if layer.is_initialized]
    device = layers[0].keys.device
    source = [[*columns[first:], *[0] * (size - len(columns))] for columns in found]
    at = torch.tensor(source, device=device)
    to = torch.tensor([[*range(one + first, one + size)] for one in start], device=device)
    text = torch.arange(len(found), device=device)[:, None]
    with torch.inference_mode():
        for layer in layers:
            for kept in (layer.keys, layer.values):
                kept[text, :, to] = kept[text, :, at]


def in_place(start: int, columns: Sequence[int]) -> int:
    """How many of the first columns are those from `start` on already."""
    pairs = enumerate(columns, start)
    return next((to - start for to, column in pairs if to != column), len(columns))


def takes_trees(model: Any) -> bool:
    """Whether one forward of a transformers model can be over a tree.

    Not where an attention kernel has masks of its own, or where a layer sees a window only. What a
    model does with a mask and with positions is tried once, on a few tokens.
    """
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    plain = all(type(layer) is DynamicLayer for layer in layers)
    plain = plain and getattr(config, "attention_layers", None) is None  # GPT-Neo's windows
    known = "position_ids" in inspect.signature(model.forward).parameters
    if not (plain and known and model.config._attn_implementation in MASKED):
        return False
    if model not in TRIED:
        TRIED[model] = computes_trees(model)
    return TRIED[model]


def computes_trees(model: Any) -> bool:
    """Whether a node's scores are those of a plain forward over its path."""

    def scores(ids: list[int], **more: Any) -> Tensor:
        with torch.inference_mode():
            out = model(torch.tensor([ids], device=model.device), **more, return_dict=True)
        return out.logits[0, -1].float()

    try:
        tree = scores([0, *PROBE.token], **tree_inputs([Block(0, 1, PROBE)], 0, model))
    except (IndexError, RuntimeError, TypeError, ValueError):  # it knows masks of another shape
        return False
    path, unmasked = scores([0, 2, 0]), scores([0, *PROBE.token])
    return bool((tree - path).abs().max() <= CLOSE * (unmasked - path).abs().max())
