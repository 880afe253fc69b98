"""Random numbers that depend on what they are for, never on the order in which they are drawn.

A row's noise is a function of (seed, prompt, position, …). So a text is the same alone and in any
batch, whatever rows were finished, drafted or dropped before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.ops.splitmix import extend


def combine(*keys: Tensor) -> Tensor:
    """One int64 key out of several, broadcast against each other; order matters."""
    total = torch.zeros((), dtype=torch.int64, device=keys[0].device)
    for key in keys:
        total = extend(total, key)
    return total


def uniform(*keys: Tensor) -> Tensor:
    """Numbers in (0, 1), float64, one for each combination of keys."""
    return ((combine(*keys) >> 12) & ((1 << 52) - 1)).double().add(0.5).mul(2.0**-52)


def gumbel(*keys: Tensor) -> Tensor:
    """Standard Gumbel noise, float64, one for each combination of keys."""
    return -(-uniform(*keys).log()).log()


def streams(prompts: list[Tensor], seed: int) -> Tensor:
    """The noise key of each prompt (B,): equal prompts of one batch get different ones.

    A prompt's key is the sum of its tokens' hashes, each with its position, so that all are hashed
    at once.
    """
    device = prompts[0].device
    length = torch.tensor([len(prompt) for prompt in prompts], device=device)
    row = torch.arange(len(prompts), device=device).repeat_interleave(length)
    position = torch.arange(len(row), device=device) - (length.cumsum(0) - length)[row]
    hashed = combine(torch.cat(prompts), position)
    total = torch.zeros_like(length).index_add(0, row, hashed)
    key = combine(torch.tensor(seed, device=device), length, total)
    copy = (key[:, None] == key).tril(-1).sum(1)
    return combine(key, copy)
