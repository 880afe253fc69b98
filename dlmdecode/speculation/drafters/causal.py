"""Drafts of a small causal language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.speculation.drafters.base import Drafter, num_shared
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.cached_model import CachedModel
from dlmdecode.speculation.verifier.facts import causal_model, eos_ids
from dlmdecode.speculation.verifier.verifier import load_verifier

NOTHING = Draft.chain([])


class CausalDrafter(Drafter):
    """A small autoregressive transformers model, greedy, with its own key/value cache.

    Raises:
        ValueError: a model whose cache cannot be rewound.
    """

    copyable = True

    def __init__(self, model: Any, tokenizer: Any = None):
        inner = causal_model(model)
        fix = "give a transformers causal LM"
        require(inner is not None, "drafter", type(model).__name__, fix)
        self.model, self.tokenizer = inner.eval(), tokenizer
        self.vocab_size = inner.get_input_embeddings().num_embeddings
        self.eos_ids = eos_ids(inner)
        self.reset()

    def reset(self) -> None:
        self.cached = CachedModel(self.model, role="drafter", far=True)
        self.ids: list[int] = []  # what the cache holds

    @torch.no_grad()
    def draft(self, prefix: list[int], length: int) -> list[int]:
        text = list(prefix)
        self.cached.keep([num_shared(self.ids, prefix[:-1])], [()])
        while len(text) < len(prefix) + length:
            self.forwards += 1
            scores = self.cached([text], [NOTHING])[0][0]
            text.append(int(scores.argmax()))
            if text[-1] in self.eos_ids or not self.goes_on(scores):
                break
        self.ids = text[:-1]
        return text[len(prefix) :]

    def goes_on(self, scores: Tensor) -> bool:
        """Whether the draft goes on behind the token chosen from these scores (V,)."""
        del scores
        return True


@register_drafter("causal", paper="arXiv 2211.17192")
def causal(model: str) -> CausalDrafter:
    """A small causal language model: name, hub id, folder or .gguf file."""
    loaded = load_verifier(model)
    return CausalDrafter(loaded.model, loaded.tokenizer)
