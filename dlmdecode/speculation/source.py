"""Where drafts come from: a drafter, the search of its lattice, and the two vocabularies."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from dlmdecode.checks import require
from dlmdecode.speculation.diffuspec.lattice import TopM, draft_end
from dlmdecode.speculation.diffuspec.path_search import (
    BestTokens,
    PathSearch,
    Proxy,
    resolve_search,
)
from dlmdecode.speculation.diffuspec.proxies import resolve_proxy
from dlmdecode.speculation.draft_length import AdaptiveLength, FixedLength, resolve_length
from dlmdecode.speculation.drafters import DiffusionDrafter, Drafter, resolve_drafter
from dlmdecode.speculation.verifier.verifier import Verifier
from dlmdecode.speculation.vocabulary import Vocabulary, match


@dataclass
class Source:
    """Where a row's drafts come from."""

    drafter: Drafter
    words: Vocabulary
    search: PathSearch | BestTokens
    proxy: Proxy
    lengths: AdaptiveLength | FixedLength
    draft_seconds: float = 0.0
    search_seconds: float = 0.0

    def __post_init__(self) -> None:
        if hasattr(self.drafter, "reset"):
            self.drafter.reset()
        if isinstance(self.drafter, DiffusionDrafter):
            self.drafter.restrict(self.words)
        self.eos_ids = tuple(getattr(self.drafter, "eos_ids", ()))

    def start(self) -> Source:
        """The same for another text."""
        return replace(self, lengths=self.lengths.start())

    def draft(self, text: list[int], length: int) -> tuple[list[int], int]:
        """A draft of at most `length` verifier ids, and the tokens before its first EOS."""
        if length < 1:
            return [], 0
        began = time.perf_counter()
        prefix = self.words.to_drafter(text)
        if not prefix:  # nothing of the text means anything to the drafter
            return [], 0
        proposed = self.drafter.draft(prefix, length)
        drafted = time.perf_counter()
        if isinstance(proposed, TopM):
            generated = draft_end(proposed, self.eos_ids)
            proposed = self.search(proposed, prefix, self.proxy, self.eos_ids)
        else:
            ends = (i for i, token in enumerate(proposed) if token in self.eos_ids)
            generated = next(ends, len(proposed))
        self.draft_seconds += drafted - began
        self.search_seconds += time.perf_counter() - drafted
        return self.words.to_verifier(proposed, text)[:length], generated


def resolve_source(
    drafter: Any,
    verifier: Verifier,
    path_search: Any,
    proxy: Any,
    draft_length: Any,
    draft_steps: Any,
    vocabulary: Any,
) -> Source:
    """What drafts for a verifier; arguments as in `speculate`.

    Raises:
        ValueError: an argument out of range, or without effect beside the others.
    """
    search, lengths = resolve_search(path_search), resolve_length(draft_length)
    drafter = resolve_drafter(drafter, draft_steps, search.num_candidates)
    if isinstance(drafter, DiffusionDrafter):
        most = f"a step writes one draft token or more: give at most draft_length={lengths.longest}"
        require(drafter.steps <= max(lengths.longest, 1), "draft_steps", drafter.steps, most)
    searched = getattr(drafter, "searched", True)
    one = f"{type(drafter).__name__} drafts one path, there is nothing to search; leave it out"
    require(searched or path_search == "cps", "path_search", path_search, one)
    asked = searched and isinstance(search, PathSearch) and search.lam < 1
    unasked = "nothing asks it; it guides path_search='cps' of a diffusion model's draft"
    require(proxy is None or asked, "proxy", proxy, unasked)
    words = match(vocabulary, drafter, verifier)
    return Source(drafter, words, search, resolve_proxy(proxy, drafter), lengths.start())
