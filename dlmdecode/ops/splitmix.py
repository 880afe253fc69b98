"""Keys of sequences of integers: splitmix64's finaliser (Steele et al. 2014) of int64 numbers.

Everything here takes torch tensors and numpy arrays alike, and wraps around at 64 bits. `mix` and
`extend` of `csrc/ngram.h` give the same keys.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # as signed integers
INCREMENT = -7046029254386353131
Integers = TypeVar("Integers", Tensor, np.ndarray)


def mix(key: Integers) -> Integers:
    """Scramble int64 keys."""
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        key = (key ^ ((key >> shift) & ((1 << (64 - shift)) - 1))) * multiplier
    return key ^ ((key >> 31) & ((1 << 33) - 1))


def extend(key: Integers, token: Integers) -> Integers:
    """The key of what `key` stands for followed by `token`; broadcast against each other."""
    return mix(key + token + INCREMENT)


def key_of(ids: Tensor) -> Tensor:
    """The keys (…) of sequences (…, n), from left to right; 0 for empty ones."""
    key = ids.new_zeros(ids.shape[:-1])
    for token in ids.unbind(-1):
        key = extend(key, token)
    return key
