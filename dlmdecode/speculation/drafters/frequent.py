"""A head for frequent tokens only, which most drafts are made of (FR-Spec, arXiv 2502.14856)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from dlmdecode.checks import Count, conform, require
from dlmdecode.speculation.diffuspec.ngram import NGram
from dlmdecode.speculation.diffuspec.proxies import resolve_proxy


def frequent_ids(ngram: NGram, vocab_size: int, frequent: int) -> list[int]:
    """So many ids of a vocabulary: the most frequent in the texts an n-gram was built from.

    Raises:
        ValueError: no fewer than the vocabulary has.
    """
    frequent = conform("frequent", frequent, Count)
    fix = f"the vocabulary has {vocab_size}: give fewer"
    require(frequent < vocab_size, "frequent", frequent, fix)
    alone = NGram(ngram.orders[:1], ngram.floor)
    score = alone.log_prob(np.empty((1, 0), np.int64), np.arange(vocab_size))[0]
    return sorted(np.argsort(-score, kind="stable")[:frequent].tolist())


def check_ids(ids: Iterable[int], vocab_size: int, eos_ids: tuple[int, ...]) -> list[int]:
    """Ids that a head keeps, the EOS ids among them, sorted.

    Raises:
        ValueError: ids that the vocabulary does not have, or all that it has.
    """
    kept = sorted({conform("ids", one, int) for one in ids} | set(eos_ids))
    fits = bool(kept) and 0 <= kept[0] and kept[-1] < vocab_size
    require(fits, "ids", kept[:1] + kept[-1:], f"give some of 0..{vocab_size - 1}")
    require(len(kept) < vocab_size, "ids", len(kept), "these are all there are; leave it out")
    return kept


def with_rows(model: Any, ids: Tensor) -> Any:
    """A transformers model whose logits are those of `ids` (n,) alone; it shares all weights but
    the rows of its head.

    Raises:
        ValueError: its head is no linear layer of its own.
    """
    head = model.get_output_embeddings()
    name = next((name for name, one in model.named_children() if one is head), None)
    plain = name is not None and type(head) is nn.Linear
    require(plain, "ids", type(head).__name__, "the head has no rows to choose from; leave it out")
    rows = copy.copy(head)
    rows.out_features = len(ids)
    rows._parameters = {
        key: value if value is None else nn.Parameter(value.detach()[ids], requires_grad=False)
        for key, value in head._parameters.items()
    }
    other = copy.copy(model)
    other._modules = {**model._modules, name: rows}
    return other


def read_ngram(path: str, tokenizer: Any) -> NGram:
    """An n-gram file of the same ids."""
    ngram = resolve_proxy(path, tokenizer)
    require(isinstance(ngram, NGram), "ngram", path, "give a file of `dlmdecode ngram build`")
    assert isinstance(ngram, NGram)
    return ngram
