"""Drafts of a small causal language model."""

from __future__ import annotations

from typing import Any

import torch

from dlmdecode.checks import require
from dlmdecode.speculation.drafters.base import num_shared
from dlmdecode.speculation.verifier.caching import causal_model, eos_ids
from dlmdecode.speculation.verifier.forward import Forward


class CausalDrafter:
    """A small autoregressive transformers model, greedy, with its own key/value cache.

    Raises:
        ValueError: a model whose cache cannot be rewound.
    """

    searched = False  # it drafts one path

    def __init__(self, model: Any, tokenizer: Any = None):
        inner = causal_model(model)
        fix = "give a transformers causal LM"
        require(inner is not None, "drafter", type(model).__name__, fix)
        self.model, self.tokenizer = inner.eval(), tokenizer
        self.vocab_size = inner.get_input_embeddings().num_embeddings
        self.reset()
        self.forwards = 0

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return eos_ids(self.model)

    def reset(self) -> None:
        """Forget the last text."""
        self.forward = Forward(self.model, role="drafter", far=True)
        self.ids: list[int] = []  # what the cache holds

    @torch.no_grad()
    def draft(self, prefix: list[int], length: int) -> list[int]:
        text = list(prefix)
        self.forward.keep(num_shared(self.ids, prefix[:-1]))
        while len(text) < len(prefix) + length:
            self.forwards += 1
            text.append(int(self.forward(text, [])[0].argmax()))
            if text[-1] in self.eos_ids:
                break
        self.ids = text[:-1]
        return text[len(prefix) :]
