"""N-gram models of texts, counted in memory."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

import numpy as np
import torch

from dlmdecode.checks import require
from dlmdecode.ops.splitmix import extend
from dlmdecode.speculation.diffuspec.ngram import BEGIN, STUPID_WEIGHT, NGram, Order

SMOOTHINGS = ("kneser_ney", "stupid")


def build(
    texts: Iterable[list[int]],
    vocab_size: int,
    order: int = 3,
    smoothing: str = "kneser_ney",
    tokenizer: str = "",
) -> NGram:
    """Count texts.

    Args:
        texts: token ids of each text, with its EOS where the model is to know that texts end.
        vocab_size: number of token ids, for the share of a token never seen.
        order: n of the longest n-gram.
        smoothing: "kneser_ney" (interpolated, one discount per order), or "stupid" (relative
            frequencies, times 0.4 for each step back: scores, not probabilities).
        tokenizer: `fingerprint` of the tokenizer.

    Raises:
        ValueError: no token in any text, or an argument out of range.
    """
    require(order >= 1, "order", order, "give at least 1")
    require(smoothing in SMOOTHINGS, "smoothing", smoothing, f"give one of {SMOOTHINGS}")
    rows = [[BEGIN] * (order - 1) + list(text) for text in texts if len(text)]
    require(bool(rows), "texts", "nothing", "give at least one text with a token")
    keys, contexts = grams([token for row in rows for token in row], order)
    make = kneser_ney if smoothing == "kneser_ney" else stupid
    return make(keys, contexts, vocab_size, tokenizer)


def grams(ids: list[int], order: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Keys of the n-grams that end at each id but `BEGIN`, and of their contexts, per order."""
    token = np.array(ids, dtype=np.int64)
    at = np.flatnonzero(token != BEGIN)
    keys, contexts = [], []
    key = np.zeros_like(token)
    for _ in range(order):
        context = np.roll(key, 1)
        key = extend(context, token)
        keys.append(key[at])
        contexts.append(context[at])
    return keys, contexts


def stupid(
    keys: list[np.ndarray], contexts: list[np.ndarray], vocab_size: int, tokenizer: str
) -> NGram:
    """Relative frequencies from the keys and contexts of every position, per order."""
    orders = map(relative_frequencies, keys, contexts)
    return NGram(tuple(orders), STUPID_WEIGHT - log(vocab_size), tokenizer)


def relative_frequencies(keys: np.ndarray, contexts: np.ndarray) -> Order:
    """How often n-grams follow their contexts, given those of every position (N,)."""
    unique, first, count = np.unique(keys, return_index=True, return_counts=True)
    seen, which, total = np.unique(contexts, return_inverse=True, return_counts=True)
    score = np.log(count / total[which[first]])
    return make_order(unique, score, seen, np.full(len(seen), STUPID_WEIGHT))


def kneser_ney(
    keys: list[np.ndarray], contexts: list[np.ndarray], vocab_size: int, tokenizer: str
) -> NGram:
    """Interpolated Kneser-Ney (Chen and Goodman 1999) in back-off form."""
    orders: list[Order] = []
    lower = np.empty(0)  # probability of order m - 1 at every position
    floor = 0.0
    for number, (key, context) in enumerate(zip(keys, contexts, strict=True), 1):
        # below the top order an n-gram counts once for each token seen before it
        at = np.arange(len(key))
        if number < len(keys):
            at = np.unique(keys[number], return_index=True)[1]
        unique, first, count = np.unique(key[at], return_index=True, return_counts=True)
        seen, which = np.unique(context[at][first], return_inverse=True)
        total, kinds = np.bincount(which, count), np.bincount(which)
        discount = discount_of(count)
        weight = discount * kinds / total
        below = lower[at][first] if number > 1 else 1 / vocab_size
        p = (count - discount) / total[which] + weight[which] * below
        lower = p[np.searchsorted(unique, key)]
        floor = floor or log(weight[0] / vocab_size)
        orders.append(make_order(unique, np.log(p), seen, np.log(weight)))
    return NGram(tuple(orders), floor, tokenizer)


def discount_of(count: np.ndarray) -> float:
    """What is taken from each count, from the number of ones and twos (Ney et al. 1994)."""
    ones, twos = (count == 1).sum(), (count == 2).sum()
    return float(ones / (ones + 2 * twos)) if ones and twos else 0.75


def make_order(
    key: np.ndarray, score: np.ndarray, context: np.ndarray, weight: np.ndarray
) -> Order:
    arrays = (key, score.astype(np.float32), context, weight.astype(np.float32))
    return Order(*map(torch.from_numpy, arrays))
