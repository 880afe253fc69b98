"""A causal model with its cache over growing texts, and where a text ends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from dlmdecode.checks import require
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.branches import Block, move, takes_trees, tree_inputs
from dlmdecode.speculation.verifier.caching import (
    CACHE,
    UNFIT,
    can_rewind,
    check_cached,
    new_cache,
    rewind,
    step_inputs,
    takes,
)
from dlmdecode.speculation.verifier.facts import switch_lengths

LONGEST = 2048  # uncached positions under a tree's mask, which grows with their square


class CachedModel:
    """A causal model over growing texts: its forwards share a cache of keys and values.

    The first columns of the cache are those of each text, as many as it has; where it has fewer
    than others, those behind are never looked at.

    Args:
        model: the transformers model itself, out of any wrapper.
        texts: how many there are; several for a model that `takes_batches`.
        role: the argument that it was, for error messages.
        far: `keep` drops what several forwards computed, not the last one alone.

    Raises:
        ValueError: a model whose cache cannot be rewound.
    """

    def __init__(self, model: Any, texts: int = 1, role: str = "verifier", far: bool = False):
        check_cached(model, role)
        self.model, self.role, self.far = model, role, far
        self.cache = new_cache(model, far)
        self.switches = switch_lengths(model)
        self.keeps_logits = takes(model, "logits_to_keep")
        self.lengths = [0] * texts  # tokens of each text in the cache
        self.columns = self.calls = 0
        self.blocks: list[Block] = []  # of the last forward
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

    def fits(self, text: int, length: int, draft: Draft) -> Draft:
        """What one forward behind `length` tokens of a text can verify of a draft: all, or a chain.

        A model counts the nodes of a tree as if they followed one another, so that all of them have
        to end before a switch.
        """
        short = length - self.lengths[text] <= LONGEST and len(draft) <= self.room(length)
        return draft if draft.is_chain or short and self.takes_trees else draft.first_chain()

    @cached_property
    def takes_trees(self) -> bool:
        return takes_trees(self.model)

    def __call__(
        self, texts: Sequence[list[int]], drafts: Sequence[Draft], before: int = 0
    ) -> list[Tensor]:
        """Of each text scores (n + 1, V) float32 after it and after each of its draft's n nodes;
        before these, of a first forward, those after at most `before` tokens before its last."""
        ids = self.aligned(texts, drafts)
        inputs = step_inputs(self.model, ids, self.columns, self.cache)
        known = ids.shape[1] - inputs["input_ids"].shape[1]
        if inputs.get(CACHE) is None:  # a model drops its cache where its frequencies change
            self.cache = inputs[CACHE] = new_cache(self.model, self.far)
            self.whole = known == 0
        had = [min(length, known) for length in self.lengths]
        rest = [len(text) - length for text, length in zip(texts, had, strict=True)]
        self.blocks = list(map(Block, had, rest, drafts))
        if len(texts) > 1 or not drafts[0].is_chain:
            inputs |= tree_inputs(self.blocks, known, self.model)
        kept = [min(before + 1, block.rest) + len(block.draft) for block in self.blocks]
        if self.keeps_logits:
            inputs["logits_to_keep"] = max(kept)
        with torch.inference_mode():
            out = self.model(**inputs, return_dict=True)
        if self.calls == 0:
            require(can_rewind(self.cache, self.far), self.role, type(self.model).__name__, UNFIT)
        self.calls += 1
        self.columns = ids.shape[1]
        self.lengths = [len(text) + len(draft) for text, draft in zip(texts, drafts, strict=True)]
        return [logits[-count:].float() for logits, count in zip(out.logits, kept, strict=True)]

    def aligned(self, texts: Sequence[list[int]], drafts: Sequence[Draft]) -> Tensor:
        """Texts and drafts (B, L), filled on the left, so that their new tokens end together."""
        pairs = zip(texts, drafts, self.lengths, strict=True)
        new = max(len(text) + len(draft) - length for text, draft, length in pairs)
        size = self.columns + new
        rows = [[*text, *draft.token] for text, draft in zip(texts, drafts, strict=True)]
        filled = [[0] * (size - len(row)) + row for row in rows]
        return torch.tensor(filled, device=self.model.device)

    def keep(self, lengths: Sequence[int], paths: Sequence[Sequence[int]]) -> None:
        """Drop keys and values from each text's position `length` on, but those of the nodes `path`
        of a draft that stood there; they become the next positions."""
        if self.blocks:
            found = map(self.found, self.blocks, lengths, paths)
            move(self.cache, [block.known for block in self.blocks], list(found))
        self.lengths = [length + len(path) for length, path in zip(lengths, paths, strict=True)]
        self.shorten()

    def found(self, block: Block, length: int, path: Sequence[int]) -> list[int]:
        """In which columns of the last forward the positions from `block.known` on are."""
        first = self.columns - len(block)
        rest = range(first, first + length - block.known)
        return [*rest, *(first + block.rest + node for node in path)]

    def only(self, texts: Sequence[int]) -> None:
        """Forget all texts but these."""
        self.lengths = [self.lengths[text] for text in texts]
        self.cache.batch_select_indices(torch.tensor(texts, device=self.model.device))
        self.shorten()

    def shorten(self) -> None:
        """Drop the columns that no text has."""
        if self.calls:
            rewind(self.cache, self.columns - max(self.lengths))
        self.columns = max(self.lengths)


def takes_batches(model: Any) -> bool:
    """Whether one forward of a transformers model can be over texts of different lengths."""
    return takes_trees(model) and not switch_lengths(model)


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
