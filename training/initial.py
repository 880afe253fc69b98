"""Weights to begin a run with: those of a checkpoint, its vocabulary turned into another one's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode.models.loading import find_folder, load_tokenizer
from dlmdecode.models.weights import tensors, weight_files


def initial_weights(checkpoint: str, tokenizer: Any) -> dict[str, Tensor]:
    """The float32 weights of a checkpoint by name, with one row for each token of `tokenizer`.

    A token that the checkpoint's own tokenizer lacks begins as the mean of those that spell it.
    """
    folder = find_folder(checkpoint)
    given = dict(tensors(weight_files(folder), torch.device("cpu")))
    theirs = load_tokenizer(folder)
    rows = [spelling(theirs, token, i, tokenizer) for token, i in by_id(tokenizer)]
    return {
        name: torch.stack([weight[row].float().mean(0) for row in rows])
        if len(weight) == len(theirs)
        else weight.float()
        for name, weight in given.items()
    }


def begin_with(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Give a module these weights; the names of those that it has besides.

    Raises:
        ValueError: a weight that the module lacks, hence weights of another architecture.
    """
    besides, foreign = model.load_state_dict(weights, strict=False)
    if foreign:
        raise ValueError(f"initial: its {foreign[0]} has no place in a {type(model).__name__}")
    return besides


def by_id(tokenizer: Any) -> list[tuple[str, int]]:
    return sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])


def spelling(theirs: Any, token: str, i: int, tokenizer: Any) -> list[int]:
    """The ids that stand for a token of `tokenizer` in another one."""
    known = theirs.get_vocab().get(token)
    return [known] if known is not None else theirs(tokenizer.decode([i])).input_ids
