"""Drafts of a small causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import Count, require
from dlmdecode.speculation.diffuspec.lattice import entropy
from dlmdecode.speculation.drafters.base import Drafter, num_shared, window
from dlmdecode.speculation.drafters.frequent import (
    check_ids,
    frequent_ids,
    read_ngram,
    with_rows,
)
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.cached_model import CachedModel
from dlmdecode.speculation.verifier.facts import causal_model, eos_ids, max_positions
from dlmdecode.speculation.verifier.verifier import load_verifier

NOTHING = Draft.chain([])


class CausalDrafter(Drafter):
    """A small autoregressive transformers model, greedy, with its own key/value cache.

    Args:
        model: a transformers causal LM.
        tokenizer: its own.
        ids: those that it drafts, beside EOS, by a head of their rows alone (FR-Spec, arXiv
            2502.14856); see `frequent_ids`. None drafts any.

    Raises:
        ValueError: a model whose cache cannot be rewound; ids as in `check_ids` and `with_rows`.
    """

    copyable = True
    measures_entropy = True

    def __init__(self, model: Any, tokenizer: Any = None, ids: Iterable[int] | None = None):
        inner = causal_model(model)
        fix = "give a transformers causal LM"
        require(inner is not None, "drafter", type(model).__name__, fix)
        self.model, self.tokenizer = inner.eval(), tokenizer
        self.vocab_size = inner.get_input_embeddings().num_embeddings
        self.eos_ids = eos_ids(inner)
        self.drafted: list[int] | None = None  # the ids of its head's rows
        if ids is not None:
            self.drafted = check_ids(ids, self.vocab_size, self.eos_ids)
            self.model = with_rows(inner, torch.tensor(self.drafted, device=inner.device))
        self.worth: Callable[[int, float], bool] | None = None
        self.reset()

    def reset(self) -> None:
        self.cached = CachedModel(self.model, role="drafter", far=True)
        self.ids: list[int] = []  # what the cache holds

    def end_by(self, worth: Callable[[int, float], bool] | None) -> None:
        self.worth = worth

    @torch.no_grad()
    def draft(self, prefix: list[int], length: int) -> list[int]:
        prefix = window(prefix, length, max_positions(self.model))
        text, known = list(prefix), 0
        self.cached.keep([num_shared(self.ids, prefix[:-1])], [()])
        while len(text) < len(prefix) + length:
            self.forwards += 1
            scores, known = self.cached([text], [NOTHING])[0][0], len(text)
            if self.worth and not self.worth(known - len(prefix), float(entropy(scores))):
                break
            best = int(scores.argmax())
            text.append(best if self.drafted is None else self.drafted[best])
            if text[-1] in self.eos_ids or not self.goes_on(scores):
                break
        self.ids = text[:known]
        return text[len(prefix) :]

    def goes_on(self, scores: Tensor) -> bool:
        """Whether the draft goes on behind the token chosen from these scores (V,)."""
        del scores
        return True


@register_drafter("causal", paper="arXiv 2211.17192")
def causal(model: str, frequent: Count | None = None, ngram: str | None = None) -> CausalDrafter:
    """A small causal language model: name, hub id, folder or .gguf file. With frequent=N its head
    is for the N ids alone that are the most frequent of an n-gram file."""
    given = (frequent is None) == (ngram is None)
    require(given, "frequent", frequent, f"it goes with ngram=FILE, which is {ngram!r}")
    loaded = load_verifier(model)
    if frequent is None or ngram is None:
        return CausalDrafter(loaded.model, loaded.tokenizer)
    counted = read_ngram(ngram, loaded.tokenizer)
    ids = frequent_ids(counted, loaded.vocab_size, frequent)
    return CausalDrafter(loaded.model, loaded.tokenizer, ids)
