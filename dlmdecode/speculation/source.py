"""Where drafts come from: a drafter, the search through what it gives, and the two vocabularies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlmdecode.checks import require
from dlmdecode.speculation.cut_length import resolve_length
from dlmdecode.speculation.diffuspec.lattice import TopM, draft_end
from dlmdecode.speculation.diffuspec.lattice_tree import LatticeTree, resolve_search
from dlmdecode.speculation.diffuspec.path_search import BestTokens, PathSearch, Proxy
from dlmdecode.speculation.diffuspec.proxies import resolve_proxy
from dlmdecode.speculation.draft_length import DraftLength
from dlmdecode.speculation.drafters import Drafter, Observation, resolve_drafter
from dlmdecode.speculation.drafters.plan import Proposal, together
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.verifier import Verifier
from dlmdecode.speculation.vocabulary import SameIds, Vocabulary, match


@dataclass
class Source:
    """Where a text's drafts come from; the seconds are those of drafts, and of searches, the
    forwards those of the drafter."""

    drafter: Drafter
    vocabulary: Vocabulary
    search: PathSearch | BestTokens | LatticeTree
    proxy: Proxy
    lengths: DraftLength
    begun: bool = False  # a step of the text is over
    last_seconds: float = 0.0  # of the last draft and its search
    draft_seconds: float = 0.0
    search_seconds: float = 0.0
    forwards: int = 0

    def __post_init__(self) -> None:
        self.drafter.reset()
        self.drafter.read_with(self.read)
        self.drafter.end_by(self.lengths.worth if self.lengths.by_entropy else None)

    def start(self, copied: bool = False) -> Source:
        """The same for another text, with a drafter of its own where that is `copied`."""
        drafter = self.drafter.copied() if copied else self.drafter
        return replace(self, drafter=drafter, lengths=self.lengths.start())

    def draft(self, text: list[int], length: int) -> tuple[Draft, int]:
        """See `drafts_of`."""
        return drafts_of([self], [text], [length])[0]

    def take(
        self, proposed: Proposal, prefix: list[int], text: list[int], length: int
    ) -> tuple[Draft, int]:
        """What was proposed after a text, `prefix` in the drafter's ids, as `drafts_of` has it."""
        draft = self.read(proposed, prefix)
        if self.lengths.cuts and draft.log_prob is not None:
            draft = self.lengths.cut(draft)
        eos_ids = self.drafter.eos_ids
        if isinstance(proposed, TopM):
            generated = draft_end(proposed, eos_ids)
        else:
            generated = length_before(draft, eos_ids)
        return self.translated(draft, text).cut(length), generated

    def translated(self, draft: Draft, text: list[int]) -> Draft:
        """A draft behind the verifier's `text` in its ids."""
        if isinstance(self.vocabulary, SameIds) and self.vocabulary.holds(draft.token):
            return draft
        return Draft.joined(self.vocabulary.to_verifier(path, text) for path in draft.paths())

    def read(self, proposed: Proposal, prefix: list[int]) -> Draft:
        """What a drafter proposed as a draft, in its ids.

        Raises:
            ValueError: nothing that a drafter returns.
        """
        drafter, name = self.drafter, type(self.drafter).__name__
        if isinstance(proposed, TopM):
            fix = "it drafted a TopM: set searched = True"
            require(drafter.searched, f"{name}.searched", drafter.searched, fix)
            began = time.perf_counter()
            found = self.search(proposed, prefix, self.proxy, drafter.eos_ids)
            self.search_seconds += time.perf_counter() - began
            if isinstance(found, Draft):
                return found
            return path_of(proposed, found) if self.lengths.cuts else Draft.chain(found)
        if isinstance(proposed, Draft):
            return proposed
        fix = "it returns a TopM, a list of ids or a Draft"
        require(isinstance(proposed, list), f"{name}.draft(…)", proposed, fix)
        return Draft.chain(proposed)

    def observe(self, seen: Observation) -> None:
        """Tell the drafter what became of its draft."""
        if self.begun:  # the first one reads the prompt, too
            self.lengths.measure(len(seen.draft), self.last_seconds + seen.seconds)
        self.begun, began = True, time.perf_counter()
        self.drafter.observe(seen)
        self.draft_seconds += time.perf_counter() - began

    def finish(self, text: list[int]) -> None:
        """Tell the drafter the whole of a text."""
        self.drafter.finish(self.vocabulary.to_drafter(text))


def drafts_of(
    sources: Sequence[Source], texts: Sequence[list[int]], lengths: Sequence[int]
) -> list[tuple[Draft, int]]:
    """For each text a draft of at most its length in verifier ids, and the tokens before its first
    EOS. What several drafters ask of one model is answered in one forward."""
    began = time.perf_counter()
    prefixes = [
        source.vocabulary.to_drafter(text) if length > 0 else []
        for source, text, length in zip(sources, texts, lengths, strict=True)
    ]
    found = [(Draft.chain([]), 0)] * len(sources)  # of a text that means nothing to the drafter
    drafting = [at for at, prefix in enumerate(prefixes) if prefix]
    before = [(source.search_seconds, source.drafter.forwards) for source in sources]
    plans = [sources[at].drafter.plan(prefixes[at], lengths[at]) for at in drafting]
    proposals = dict(zip(drafting, together(plans), strict=True))
    share = (time.perf_counter() - began) / max(len(drafting), 1)
    for at, source in enumerate(sources):
        source.last_seconds = 0.0
        if at in proposals:
            began, (searched, forwards) = time.perf_counter(), before[at]
            found[at] = source.take(proposals[at], prefixes[at], texts[at], lengths[at])
            source.forwards += source.drafter.forwards - forwards
            source.last_seconds = share + time.perf_counter() - began
            source.draft_seconds += source.last_seconds - (source.search_seconds - searched)
    return found


def path_of(top: TopM, ids: list[int]) -> Draft:
    """A path through a lattice with the drafter's log probabilities."""
    rows = zip(ids, top.ids.tolist(), top.log_prob.tolist(), strict=False)
    return Draft.chain(ids, [log_prob[row.index(one)] for one, row, log_prob in rows])


def length_before(draft: Draft, eos_ids: tuple[int, ...]) -> int:
    """Tokens of the longest path before its first EOS."""
    if not eos_ids:
        return max(draft.depth, default=-1) + 1
    length: list[int] = []
    for token, parent in zip(draft.token, draft.parent, strict=True):
        before = length[parent] if parent >= 0 else 0
        ended = token in eos_ids or (parent >= 0 and before == 0)
        length.append(0 if ended else before + 1)
    return max(length, default=0)


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
    search = resolve_search(path_search)
    drafter = resolve_drafter(drafter, draft_steps, search.num_candidates)
    lengths = resolve_length(drafter.draft_length if draft_length is None else draft_length)
    drafter.check(lengths.longest)
    silent = f"{type(drafter).__name__} does not say how likely its tokens are; give a number"
    require(drafter.scored or not lengths.cuts, "draft_length", draft_length, silent)
    silent = f"{type(drafter).__name__} does not measure its entropy; give a number"
    measured = drafter.measures_entropy or not lengths.by_entropy
    require(measured, "draft_length", draft_length, silent)
    one = f"{type(drafter).__name__} drafts one path, there is nothing to search; leave it out"
    require(drafter.searched or path_search == "cps", "path_search", path_search, one)
    asked = drafter.searched and search.guided
    unasked = "nothing asks it; it guides path_search='cps' of a diffusion model's draft"
    require(proxy is None or asked, "proxy", proxy, unasked)
    both = match(vocabulary, drafter, verifier)
    learnt = f"{type(drafter).__name__} learns the verifier's ids: draft with a model that has them"
    same = isinstance(both, SameIds) or not drafter.learns
    require(same, "vocabulary", vocabulary, f"{learnt}, or without what learns")
    drafter.restrict(both.allowed)
    return Source(drafter, both, search, resolve_proxy(proxy, drafter.tokenizer), lengths.start())
