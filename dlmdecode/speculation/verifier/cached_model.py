"""A causal model with its cache over one growing text, and where that text ends."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from dlmdecode.checks import require
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.branches import move, takes_trees, tree_inputs
from dlmdecode.speculation.verifier.caching import (
    CACHE,
    UNFIT,
    can_rewind,
    check_cached,
    new_cache,
    rewind,
    step_inputs,
)
from dlmdecode.speculation.verifier.facts import switch_lengths

LONGEST = 2048  # uncached positions under a tree's mask, which grows with their square


class CachedModel:
    """A causal model over one growing text: its forwards share a cache of keys and values.

    Args:
        model: the transformers model itself, out of any wrapper.
        role: the argument that it was, for error messages.
        far: `keep` drops what several forwards computed, not the last one alone.

    Raises:
        ValueError: a model whose cache cannot be rewound.
    """

    def __init__(self, model: Any, role: str = "verifier", far: bool = False):
        check_cached(model, role)
        self.model, self.role, self.far = model, role, far
        self.cache = new_cache(model, far)
        self.switches = switch_lengths(model)
        self.keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.length = self.calls = 0
        self.whole = True  # until a model forgets its text at a switch, as old Phi-3 code does

    def room(self, length: int) -> float:
        """How many tokens may be drafted after a text of `length`.

        All positions of a forward get the frequencies of its last one, so that a draft must not
        reach over a switch, beyond which plain decoding would get the others.
        """
        if not self.whole:
            return 0
        ahead = (max(switch - length, 0) for switch in self.switches if length <= switch + 1)
        return next(ahead, float("inf"))

    def fits(self, length: int, draft: Draft) -> Draft:
        """What one forward behind a text of `length` can verify of a draft: all, or a chain.

        A model counts the nodes of a tree as if they followed one another, so that all of them have
        to end before a switch.
        """
        short = length - self.length <= LONGEST and len(draft) <= self.room(length)
        return draft if draft.is_chain or short and self.takes_trees else draft.first_chain()

    @cached_property
    def takes_trees(self) -> bool:
        return takes_trees(self.model)

    def __call__(self, text: list[int], draft: Draft, before: int = 0) -> Tensor:
        """Scores (n + 1, V) float32 after `text` and after each of the draft's n nodes; before
        these, of a first forward, those after at most `before` tokens before the text's last."""
        ids = torch.tensor([[*text, *draft.token]], device=self.model.device)
        inputs = step_inputs(self.model, ids, self.length, self.cache)
        if inputs.get(CACHE) is None:  # a model drops its cache where its frequencies change
            self.cache = inputs[CACHE] = new_cache(self.model, self.far)
            self.whole = inputs["input_ids"].shape[1] == ids.shape[1]
        if not draft.is_chain:
            rest = inputs["input_ids"].shape[1] - len(draft)
            inputs |= tree_inputs(draft, len(text) - rest, rest, self.model)
        if self.keeps_logits:
            inputs["logits_to_keep"] = before + len(draft) + 1
        with torch.inference_mode():
            out = self.model(**inputs, return_dict=True)
        if self.calls == 0:
            require(can_rewind(self.cache, self.far), self.role, type(self.model).__name__, UNFIT)
        self.calls += 1
        self.length = ids.shape[1]
        return out.logits[0, -before - len(draft) - 1 :].float()

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        """Drop keys and values from position `length` on, but those of the nodes `path` of a draft
        that stood there; they become the next positions."""
        if list(path) != list(range(len(path))):
            move(self.cache, length, list(path))
        length += len(path)
        if self.calls:
            rewind(self.cache, self.length - length)
        self.length = length


class Ending:
    """Where the verifier's text ends: the stopping criteria that plain decoding has.

    Attributes:
        max_length: tokens of the longest text, prompt included; infinite without a limit.
    """

    def __init__(self, criteria: Any, device: torch.device):
        self.device = device
        self.eos_ids: set[int] = set()
        self.max_length = float("inf")
        self.others = []
        for one in criteria:  # the two that every text has are looked up, not called
            if type(one) is EosTokenCriteria:
                self.eos_ids |= set(one.eos_token_id.flatten().tolist())
            elif type(one) is MaxLengthCriteria:
                self.max_length = min(self.max_length, one.max_length)
            else:
                self.others.append(one)

    def __call__(self, text: list[int], new: list[int]) -> bool:
        """Whether the last new token ends the text; asked once for every token, in order."""
        ended = new[-1] in self.eos_ids or len(text) + len(new) >= self.max_length
        if self.others:
            ids = torch.tensor([text + new], device=self.device)
            verdicts = [bool(torch.as_tensor(one(ids, None)).all()) for one in self.others]
            ended = ended or any(verdicts)
        return ended
