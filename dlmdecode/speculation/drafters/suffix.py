"""Drafts that go on as the text did where it last had the same end."""

from __future__ import annotations

from collections.abc import Iterable

from dlmdecode.checks import Count, Natural, conform
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.drafters.text import TextDrafter, token_ids
from dlmdecode.speculation.retrieval.automaton import Follower, SuffixAutomaton

BIAS = 5  # tokens by which a match in other texts must be longer (SAM-Decoding)
BREAK = -1  # between texts; no token has it


class Suffix(TextDrafter):
    """What followed the longest end of the text that stood before, in it or in other texts
    (SuffixDecoding, arXiv 2411.04975; SAM-Decoding, 2411.10666).

    A suffix automaton finds it in constant time a token. A match of m tokens drafts at most
    factor * m + 2 of them, for the longer the match, the surer what follows.

    Args:
        texts: token ids of texts that are looked up beside the one that is written.
        keep: look up the texts written before, too.
        factor: draft tokens for a token of the match.
        most: tokens of the longest draft.

    Attributes:
        matched: tokens of the last draft's match.
    """

    takes_corpus = True

    def __init__(
        self,
        texts: Iterable[list[int]] = (),
        keep: bool = False,
        factor: Natural = 2,
        most: Count = 24,
    ):
        self.keep: bool = conform("keep", keep, bool)
        self.copyable = not self.keep
        self.factor: int = conform("factor", factor, Natural)
        self.most: int = conform("most", most, Count)
        self.others = SuffixAutomaton()
        self.matched = 0
        super().__init__()
        self.read_corpus(texts)

    def read_corpus(self, texts: Iterable[list[int]]) -> None:
        for text in token_ids(texts):
            self.remember(text)
        self.reset()

    def remember(self, text: list[int]) -> None:
        for token in (*text, BREAK):
            self.others.add(token)

    def finish(self, text: list[int]) -> None:
        if self.keep:
            self.remember(text)

    def begin(self) -> None:
        self.own, self.follower = SuffixAutomaton(), Follower(self.others)

    def grow(self, ids: list[int]) -> None:
        for token in ids:
            self.own.add(token)
            self.follower.add(token)

    def guess(self, length: int) -> list[int]:
        self.matched, end = self.own.repeated()
        source = self.own
        if self.follower.length - BIAS > self.matched:
            self.matched, end, source = self.follower.length, self.follower.end, self.others
        budget = min(self.factor * self.matched + 2, self.most, length) if self.matched else 0
        found = source.after(end, budget)
        return found[: found.index(BREAK)] if BREAK in found else found


@register_drafter("suffix", paper="arXiv 2411.04975, 2411.10666")
def suffix(keep: bool = False, factor: Natural = 2, most: Count = 24) -> Suffix:
    """What followed the longest end of the text that stood before, in it or, with keep=true, in
    texts written before."""
    return Suffix((), keep, factor, most)
