"""The verifier's side of a step: its forward and cache, its processors, where its text ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from dlmdecode.checks import require
from dlmdecode.speculation.drafters import ids_of


class Forward:
    """The verifier's forwards over one growing text, and the cache they share."""

    def __init__(self, model: Any, kwargs: dict[str, Any]):
        self.model: Any = model
        self.cache: Any = kwargs.get("past_key_values")
        require(
            hasattr(self.cache, "crop"),
            "verifier",
            type(model).__name__,
            "its generation_config gives it no dynamic key/value cache; set use_cache=True and "
            "no static cache_implementation",
        )
        record = getattr(self.cache, "activate_past_recording", None)
        if record is not None:  # sliding windows must be rewindable
            record()
        self.keeps_logits = "logits_to_keep" in kwargs
        self.length = self.calls = 0

    def __call__(self, text: list[int], draft: list[int]) -> Tensor:
        """Scores (k + 1, V) float32 after `text` and after each draft token."""
        self.calls += 1
        tokens = text[self.length :] + draft
        ids = torch.tensor([tokens], device=self.model.device)
        few = {"logits_to_keep": len(draft) + 1} if self.keeps_logits else {}
        out = self.model(ids, past_key_values=self.cache, use_cache=True, **few)
        self.length += len(tokens)
        return out.logits[0, -len(draft) - 1 :].float()

    def keep(self, length: int) -> None:
        """Drop keys and values from position `length` on."""
        excess = self.length - length
        if excess or hasattr(self.cache, "activate_past_recording"):
            self.cache.crop(-excess)
        self.length = length


def process(scores: Tensor, tokens: list[int], processors: Any) -> Tensor:
    """The verifier's logits processors, each position after its own text."""
    if not processors:
        return scores
    first = len(tokens) - len(scores) + 1
    ids = torch.tensor([tokens], device=scores.device)
    rows = [processors(ids[:, : first + i], scores[i : i + 1]) for i in range(len(scores))]
    return torch.cat(rows)


class Stop:
    """Where the verifier's text ends: its EOS ids, its length, any other criterion."""

    def __init__(self, criteria: Any, config: Any):
        self.eos_ids, self.max_length = set(ids_of(config.eos_token_id)), config.max_length
        plain = (EosTokenCriteria, MaxLengthCriteria)
        self.others = [one for one in criteria if not isinstance(one, plain)]

    def cut(self, text: list[int], new: list[int]) -> tuple[list[int], bool]:
        """`new` up to the first token that ends the text, and whether one does."""
        for count, token in enumerate(new, 1):
            ended = token in self.eos_ids or len(text) + count >= self.max_length
            if ended or self.asks_to_stop(text + new[:count]):
                return new[:count], True
        return new, False

    def asks_to_stop(self, text: list[int]) -> bool:
        if not self.others:
            return False
        ids = torch.tensor([text])
        return any(bool(torch.as_tensor(one(ids, None)).all()) for one in self.others)
