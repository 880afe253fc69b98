"""Token n-grams with back-off: saved memory-mapped, or counted online; `counting.py` builds them.

Every order m has two sorted arrays of 64-bit keys, so a file is used in place and C++ reads the
same arrays: (context, token) -> log probability, and context -> log weight of backing off from it.
A score looks for the longest known n-gram:

    log_prob(context, token) = log p of order m                     if the m-gram is known
                             = weight(context) + score of order m - 1   otherwise

where an unknown context has weight 0, and a token unknown to order 1 scores `floor`.

The key of ids, context first, is a chain: starting from h = 0, for each id
h = mix(h + id + 0x9E3779B97F4A7C15) modulo 2**64, with splitmix64's finaliser
mix(z): z = (z ^ z>>30) * 0xBF58476D1CE4E5B9; z = (z ^ z>>27) * 0x94D049BB133111EB; z ^ z>>31,
shifts unsigned; kept and sorted as signed integers. `BEGIN` = -1 stands before the first token.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import require
from dlmdecode.ops.splitmix import extend

BEGIN = -1
FORMAT = "dlmdecode.ngram.1"
STUPID_WEIGHT = log(0.4)  # Brants et al. 2007


@dataclass(frozen=True)
class Order:
    """The arrays of one order; key arrays are sorted. E n-grams, C contexts."""

    key: Tensor  # (E,) int64
    log_prob: Tensor  # (E,) float32
    context: Tensor  # (C,) int64; nothing is looked up in that of order 1
    weight: Tensor  # (C,) float32


@dataclass(frozen=True)
class NGram:
    """A token n-gram model; `build`, `load` or `OnlineNGram` make one.

    Attributes:
        orders: arrays of orders 1 to n.
        floor: natural log score of a token never seen.
        tokenizer: fingerprint of the tokenizer its ids belong to, "" if not known.
    """

    orders: tuple[Order, ...]
    floor: float
    tokenizer: str = ""

    @property
    def order(self) -> int:
        return len(self.orders)

    def at(self, prefix: list[int]) -> NGram:
        """Itself: it does not learn from the text."""
        del prefix
        return self

    def log_prob(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Natural log scores (C, M) float64 of int64 tokens (M,) after contexts (C, n - 1)."""
        total = np.zeros((len(context), 1))
        score = np.full((len(context), len(token)), np.nan)
        for number in range(self.order, 0, -1):
            order = self.arrays[number - 1]
            before = keys_of(context[:, context.shape[1] - number + 1 :])
            found, where = find(order[0], extend(before[:, None], token))
            np.copyto(score, total + order[1][where], where=found & np.isnan(score))
            if number > 1:
                found, where = find(order[2], before)
                total = total + np.where(found, order[3][where], 0.0)[:, None]
        return np.where(np.isnan(score), total + self.floor, score)

    @cached_property
    def arrays(self) -> list[tuple[np.ndarray, ...]]:
        """The tensors as numpy sees them, without copies."""
        return [tuple(tensor.numpy() for tensor in vars(order).values()) for order in self.orders]

    @cached_property
    def tables(self) -> dict[str, list[Tensor]]:
        """The tensors by kind, as `ops.path_search` takes them."""
        return {
            "keys": [order.key for order in self.orders],
            "log_probs": [order.log_prob for order in self.orders],
            "contexts": [order.context for order in self.orders],
            "weights": [order.weight for order in self.orders],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file.

        Raises:
            OSError: it cannot be written.
        """
        arrays = {
            f"{number}.{name}": tensor.contiguous()
            for number, order in enumerate(self.orders, 1)
            for name, tensor in vars(order).items()
        }
        about = {"format": FORMAT, "order": self.order, "floor": self.floor}
        about["tokenizer"] = self.tokenizer
        try:
            save_file(arrays, os.fspath(path), {"about": json.dumps(about)})
        except SafetensorError as error:
            raise OSError(f"cannot write {os.fspath(path)!r}: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NGram:
        """Map a file of `save` into memory.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a file of `save`.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no n-gram file {os.fspath(path)!r}")
        try:
            with safe_open(os.fspath(path), framework="pt") as opened:
                about = json.loads((opened.metadata() or {}).get("about", "{}"))
                require(about.get("format") == FORMAT, "proxy", os.fspath(path), NOT_NGRAM)
                names = Order.__annotations__
                orders = tuple(
                    Order(**{name: opened.get_tensor(f"{number}.{name}") for name in names})
                    for number in range(1, about["order"] + 1)
                )
        except SafetensorError as error:
            raise ValueError(f"proxy={os.fspath(path)!r}: {NOT_NGRAM} ({error})") from error
        return cls(orders, about["floor"], about["tokenizer"])


NOT_NGRAM = "no n-gram file of this package; make one with `dlmdecode ngram build`"


def keys_of(ids: np.ndarray) -> np.ndarray:
    """Keys (N,) int64 of rows of ids (N, n) int64."""
    key = np.zeros(len(ids), dtype=np.int64)
    for column in ids.T:
        key = extend(key, column)
    return key


def find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of `wanted` (…) is in sorted, non-empty `keys` (E,), and where."""
    where = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[where] == wanted, where


class OnlineNGram:
    """Counts the prompt and the accepted text before each draft: a proxy that needs no corpus."""

    def __init__(self, order: int = 3, vocab_size: int = 1 << 17):
        self.order, self.vocab_size = order, vocab_size

    def at(self, prefix: list[int]) -> NGram:
        keys, log_prob, contexts = ops.count_ngrams(
            torch.tensor(prefix, dtype=torch.int64, device="cpu"), self.order
        )
        every = Order(keys, log_prob, contexts, log_prob.new_full((len(contexts),), STUPID_WEIGHT))
        return NGram((every,) * self.order, STUPID_WEIGHT - log(self.vocab_size))


def fingerprint(tokenizer: Any) -> str:
    """What tells one vocabulary from another; special tokens do not count."""
    special = set(tokenizer.all_special_tokens)
    words = sorted((i, t) for t, i in tokenizer.get_vocab().items() if t not in special)
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
