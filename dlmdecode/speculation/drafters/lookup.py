"""Drafts from n-grams that stand in the text, or in other texts, already."""

from __future__ import annotations

from collections.abc import Iterable

from dlmdecode.checks import Count, conform
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.drafters.text import TextDrafter, token_ids
from dlmdecode.speculation.retrieval.pool import Pool
from dlmdecode.speculation.tree import Draft


@register_drafter("lookup", paper="Saxena 2023, prompt lookup decoding")
class PromptLookup(TextDrafter):
    """The continuation of the last earlier place where the text's end stood before.

    Args:
        longest: tokens of the end that are looked for first; then fewer, down to one.
    """

    def __init__(self, longest: Count = 3):
        self.longest: int = conform("longest", longest, Count)
        super().__init__()

    def begin(self) -> None:
        self.pool = Pool(self.longest)

    def grow(self, ids: list[int]) -> None:
        self.pool.add(ids)

    def guess(self, length: int) -> list[int]:
        found = self.pool.after(self.ids[-self.longest :], length)
        return found[0] if found else []


class Hierarchy(TextDrafter):
    """Continuations from pools in the order of how near they are: the text, what was written
    before, a corpus; the next pool is asked while there are too few (Hierarchy Drafting,
    arXiv 2502.05609).

    Args:
        texts: token ids of the corpus.
        guesses: continuations that are looked for, the branches of the draft.
        longest: tokens of the end that are looked for first.
        most: tokens of the longest continuation.
    """

    copyable = False  # one text is looked up for the next
    takes_corpus = True

    def __init__(
        self,
        texts: Iterable[list[int]] = (),
        guesses: Count = 10,
        longest: Count = 3,
        most: Count = 10,
    ):
        self.guesses: int = conform("guesses", guesses, Count)
        self.longest: int = conform("longest", longest, Count)
        self.most: int = conform("most", most, Count)
        self.before, self.corpus = Pool(self.longest), Pool(self.longest)
        super().__init__()
        self.read_corpus(texts)

    def read_corpus(self, texts: Iterable[list[int]]) -> None:
        for text in token_ids(texts):
            self.corpus.start()
            self.corpus.add(text)

    def finish(self, text: list[int]) -> None:
        self.before.start()
        self.before.add(text)

    def begin(self) -> None:
        self.pool = Pool(self.longest)

    def grow(self, ids: list[int]) -> None:
        self.pool.add(ids)

    def guess(self, length: int) -> Draft:
        end, paths = self.ids[-self.longest :], []  # type: ignore[var-annotated]
        for pool in (self.pool, self.before, self.corpus):
            wanted = self.guesses - len(paths)
            if wanted > 0:
                paths += pool.after(end, min(length, self.most), wanted)
        return Draft.joined(paths)


@register_drafter("hierarchy", paper="arXiv 2502.05609")
def hierarchy(guesses: Count = 10, longest: Count = 3, most: Count = 10) -> Hierarchy:
    """Continuations from the text and, while there are too few, from what was written before."""
    return Hierarchy((), guesses, longest, most)
