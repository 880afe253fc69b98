"""What proposes drafts, and what drafters share.

    @register_drafter("mine", paper="arXiv 2601.00001")
    class Mine(Drafter):
        "One line of help."
        def draft(self, prefix, length): …

A draft decides how many tokens a forward of the verifier writes, never which: it may be right or
wrong, random or learnt from what was seen before.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.topm import run as topm
from dlmdecode.speculation.diffuspec.lattice import FUSED, TopM
from dlmdecode.speculation.drafters.plan import Plan, Proposal
from dlmdecode.speculation.tree import Draft


class Observation(NamedTuple):
    """What became of a draft of n nodes. Ids are the verifier's."""

    text: list[int]  # before the draft; it grows afterwards: copy what is to be kept
    draft: Draft
    scores: Tensor  # (n + 1, V) float32 logits: after the text, and after each node
    accepted: list[int]  # nodes that stand, from the text on
    written: list[int]  # their tokens, then the verifier's own unless the text ended before
    seconds: float = 0.0  # of the verification
    before: Tensor | None = None  # (b, V) logits after the b tokens before the text's last

    def best(self, num: int, rows: list[int] | None = None) -> TopM:
        """The `num` best tokens, 32 at most, after the b tokens, the text, and each node: (b + n +
        1, num), or of these rows, on the CPU; ids are negative where a row has no answer."""
        scores = self.scores
        if self.before is not None and len(self.before):
            scores = torch.cat([self.before, scores])
        if rows is not None:
            scores = scores.index_select(0, torch.tensor(rows, device=scores.device))
        top = TopM(*topm(scores, min(num, scores.shape[1], FUSED)))  # every step: unchecked
        return top if scores.device.type == "cpu" else TopM(top.ids.cpu(), top.log_prob.cpu())


class Drafter(ABC):
    """Proposes what may follow a text. A subclass has `draft`, and sets what differs from here.

    Attributes:
        tokenizer: the drafter's, for `speculate` to compare with the verifier's; None: its ids are
            the verifier's.
        vocab_size: ids that it knows; None for any.
        eos_ids: ids that end a text for it.
        mask_id: an id that is no text and never reaches it; None if there is none.
        searched: what it drafts is a `TopM`, through which `path_search` looks for the draft.
        scored: its drafts have `log_prob`, or are searched.
        takes_corpus: it looks texts up that `read_corpus` gives it.
        measures_entropy: it ends its drafts as `end_by` says.
        draft_length: the rule of draft lengths where `speculate` is given none.
        prompt_scores: at most after how many tokens of a prompt's end, the last one left out,
            `observe` is shown the verifier's logits, too.
        learns: its drafts hold ids that `observe` was shown, which are the verifier's.
        copyable: copies of it, once `reset`, draft for texts that are written at the same time;
            else the rows of a batch are written one after the other.
        forwards: of its model, over all drafts.
    """

    tokenizer: Any = None
    vocab_size: int | None = None
    eos_ids: tuple[int, ...] = ()
    mask_id: int | None = None
    searched: bool = False
    scored: bool = False
    takes_corpus: bool = False
    measures_entropy: bool = False
    draft_length: Any = "adaptive"
    prompt_scores: int = 0
    learns: bool = False
    copyable: bool = False
    forwards: int = 0

    @abstractmethod
    def draft(self, prefix: list[int], length: int) -> Proposal:
        """What may follow `prefix` (P,), which is not empty; ids are the drafter's own.

        Args:
            length: at most this many tokens from the text's end; at least 1.

        Returns:
            Token ids one after the other, a `Draft`, or, where `searched`, the `TopM` tokens
            (length, M) of each position.
        """

    def plan(self, prefix: list[int], length: int) -> Plan:
        """What `draft` returns, by a generator that yields each question to its model: rows that
        are drafted at the same time have theirs answered in one forward. The loop asks this."""
        yield from ()
        return self.draft(prefix, length)

    def reset(self) -> None:  # noqa: B027  (a default, no demand)
        """A new text begins: forget what would make its drafts depend on the one before."""

    def copied(self) -> Drafter:
        """A copy, to be `reset`; a model's weights are shared."""
        return copy.copy(self)

    def restrict(self, allowed: Callable[[int], Tensor]) -> None:
        """Learn which ids are worth drafting: `allowed(size)` is (size,) bool, for ids 0 to
        size - 1, whether the verifier has a counterpart."""
        del allowed

    def end_by(self, worth: Callable[[int, float], bool] | None) -> None:
        """Learn where drafts end: before the first token for which `worth(tokens before it in the
        draft, entropy in nats of the distribution that it is the best of)` is false."""
        del worth

    def read_corpus(self, texts: Iterable[list[int]]) -> None:
        """Look these texts of its ids up, too, beside those it has."""
        del texts

    def check(self, longest: int) -> None:
        """Raise `ValueError` for an option without effect on drafts of at most `longest` tokens."""
        del longest

    def read_with(self, read: Callable[[Proposal, list[int]], Draft]) -> None:
        """Learn how a part's proposal after a prefix becomes a draft, for drafters of drafters."""
        del read

    def observe(self, seen: Observation) -> None:
        """Look at a verification, after each of them, a step without draft included."""
        del seen

    def finish(self, text: list[int]) -> None:
        """A text is written, prompt included, in the drafter's ids: keep what the next may use."""
        del text


def window(text: list[int], length: int, limit: int | None) -> list[int]:
    """The end of a text that leaves room for a draft where a model addresses `limit` positions;
    half of what fits, so that caches last.

    Raises:
        ValueError: a draft that leaves no room for the text.
    """
    if limit is None or len(text) + length <= limit:
        return text
    room = limit - length
    require(room >= 2, "draft_length", length, f"the drafter addresses {limit} positions")
    half = room // 2
    return text[-(-(len(text) - room) // half) * half :]


def num_shared(ids: list[int], others: list[int]) -> int:
    """With how many equal tokens two texts begin."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ids), len(others)))
