"""Where drafts come from: a drafter, the search through what it gives, and the two vocabularies."""

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
from dlmdecode.speculation.drafters import Drafter, Observation, resolve_drafter
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.verifier import Verifier
from dlmdecode.speculation.vocabulary import Vocabulary, match


@dataclass
class Source:
    """Where a text's drafts come from; the seconds are those of drafts, and of searches."""

    drafter: Drafter
    vocabulary: Vocabulary
    search: PathSearch | BestTokens
    proxy: Proxy
    lengths: AdaptiveLength | FixedLength
    draft_seconds: float = 0.0
    search_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.drafter.reset()

    def start(self) -> Source:
        """The same for another text."""
        return replace(self, lengths=self.lengths.start())

    def draft(self, text: list[int], length: int) -> tuple[Draft, int]:
        """A draft of at most `length` verifier ids, and the tokens before its first EOS."""
        if length < 1:
            return Draft.chain([]), 0
        began = time.perf_counter()
        prefix = self.vocabulary.to_drafter(text)
        if not prefix:  # nothing of the text means anything to the drafter
            return Draft.chain([]), 0
        proposed = self.drafter.draft(prefix, length)
        drafted = time.perf_counter()
        path, generated = self.path(proposed, prefix)
        self.draft_seconds += drafted - began
        self.search_seconds += time.perf_counter() - drafted
        return Draft.chain(self.vocabulary.to_verifier(path, text)[:length]), generated

    def path(self, proposed: TopM | list[int] | Draft, prefix: list[int]) -> tuple[list[int], int]:
        """The one path of what a drafter proposed, and the tokens before its first EOS.

        Raises:
            ValueError: a tree, or nothing that a drafter returns.
        """
        drafter, name = self.drafter, type(self.drafter).__name__
        if isinstance(proposed, TopM):
            fix = "it drafted a TopM: set searched = True"
            require(drafter.searched, f"{name}.searched", drafter.searched, fix)
            path = self.search(proposed, prefix, self.proxy, drafter.eos_ids)
            return path, draft_end(proposed, drafter.eos_ids)
        if isinstance(proposed, Draft):
            fix = "only chains, parent[i] == i - 1, can be verified yet"
            require(proposed.is_chain, f"parent of {name}'s draft", proposed.parent, fix)
            proposed = list(proposed.token)
        fix = "it returns a TopM, a list of ids or a Draft"
        require(isinstance(proposed, list), f"{name}.draft(…)", proposed, fix)
        ends = (i for i, token in enumerate(proposed) if token in drafter.eos_ids)
        return proposed, next(ends, len(proposed))

    def observe(self, seen: Observation) -> None:
        """Tell the drafter what became of its draft."""
        began = time.perf_counter()
        self.drafter.observe(seen)
        self.draft_seconds += time.perf_counter() - began


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
    drafter.check(lengths.longest)
    one = f"{type(drafter).__name__} drafts one path, there is nothing to search; leave it out"
    require(drafter.searched or path_search == "cps", "path_search", path_search, one)
    asked = drafter.searched and search.guided
    unasked = "nothing asks it; it guides path_search='cps' of a diffusion model's draft"
    require(proxy is None or asked, "proxy", proxy, unasked)
    both = match(vocabulary, drafter, verifier)
    drafter.restrict(both.allowed)
    return Source(drafter, both, search, resolve_proxy(proxy, drafter.tokenizer), lengths.start())
