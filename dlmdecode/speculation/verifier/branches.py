"""One forward over a tree of tokens: who sees whom, and whether a model computes it.

A node sees the text, its ancestors and itself, and stands where it would stand behind them alone.
"""

from __future__ import annotations

import inspect
from typing import Any
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


def tree_mask(draft: Draft, known: int, rest: int, dtype: torch.dtype) -> Tensor:
    """(1, 1, rest + n, known + rest + n): 0 where a query sees a key, else the lowest number.

    Args:
        known: positions of the text in the cache.
        rest: those after them, at least 1, which are computed with the n nodes.
    """
    size, text = len(draft), known + rest
    mask = np.full((rest + size, text + size), torch.finfo(dtype).min, np.float32)
    mask[:rest, :text] = np.triu(mask[:rest, :text], known + 1)
    mask[rest:, :text] = 0
    node = mask[rest:, text:]
    for one, parent in enumerate(draft.parent):
        if parent >= 0:
            node[one] = node[parent]
        node[one, one] = 0
    return torch.from_numpy(mask).to(dtype)[None, None]


def tree_inputs(draft: Draft, known: int, rest: int, model: Any) -> dict[str, Tensor]:
    """What a forward over `rest` positions of a text and a tree behind them needs of its own."""
    length = known + rest
    position = [*range(known, length), *(length + depth for depth in draft.depth)]
    return {
        "attention_mask": tree_mask(draft, known, rest, model.dtype).to(model.device),
        "position_ids": torch.tensor([position], device=model.device),
    }


def move(cache: Any, start: int, path: list[int]) -> None:
    """Put the keys and values of nodes `path`, which stand from `start` on, side by side there."""
    layers = [layer for layer in cache.layers if layer.is_initialized]
    first = next(at for at, node in enumerate(path) if node != at)  # those before stay
    with torch.inference_mode():
        found = torch.tensor([start + node for node in path[first:]], device=layers[0].keys.device)
        for layer in layers:
            for kept in (layer.keys, layer.values):
                kept[..., start + first : start + len(path), :] = kept.index_select(-2, found)


def takes_trees(model: Any) -> bool:
    """Whether one forward of a transformers model can be over a tree.

    Not where an attention kernel has masks of its own, or where a layer sees a window only. What a
    model does with a mask and with positions is tried once, on a few tokens.
    """
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    plain = all(type(layer) is DynamicLayer for layer in layers)
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
        tree = scores([0, *PROBE.token], **tree_inputs(PROBE, 0, 1, model))
    except (IndexError, RuntimeError, TypeError, ValueError):  # it knows masks of another shape
        return False
    path, unmasked = scores([0, 2, 0]), scores([0, *PROBE.token])
    return bool((tree - path).abs().max() <= CLOSE * (unmasked - path).abs().max())
