"""Drafters of drafters: branches of two in one tree, or a look at the text before a model runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import Tensor

from dlmdecode.checks import Count, conform, require
from dlmdecode.speculation.diffuspec.lattice import TopM
from dlmdecode.speculation.diffuspec.path_search import PathSearch
from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.plan import Plan, Proposal, together
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.drafters.resolve import resolve_drafter
from dlmdecode.speculation.drafters.suffix import Suffix
from dlmdecode.speculation.tree import Draft


class Combined(Drafter):
    """A drafter of several, at most one of them a model, whose vocabulary all then have.

    Raises:
        ValueError: two models.
    """

    def __init__(self, *parts: Drafter):
        models = [part for part in parts if part.tokenizer or part.vocab_size is not None]
        fix = "combine a model with drafters that look things up, or two of these"
        require(len(models) < 2, "drafter", [type(one).__name__ for one in models], fix)
        model = models[0] if models else parts[0]
        self.parts = parts
        self.tokenizer, self.vocab_size = model.tokenizer, model.vocab_size
        self.eos_ids, self.mask_id = model.eos_ids, model.mask_id
        self.draft_length = model.draft_length
        self.searched = any(part.searched for part in parts)
        self.takes_corpus = any(part.takes_corpus for part in parts)
        self.prompt_scores = max(part.prompt_scores for part in parts)
        self.learns = any(part.learns for part in parts)
        self.copyable = all(part.copyable for part in parts)

    def copied(self) -> Drafter:
        other = copy.copy(self)
        other.parts = tuple(part.copied() for part in self.parts)
        return other

    def reset(self) -> None:
        for part in self.parts:
            part.reset()

    def restrict(self, allowed: Callable[[int], Tensor]) -> None:
        for part in self.parts:
            part.restrict(allowed)

    def read_corpus(self, texts: Iterable[list[int]]) -> None:
        texts = list(texts)
        for part in self.parts:
            part.read_corpus(texts)

    def check(self, longest: int) -> None:
        for part in self.parts:
            part.check(longest)

    def read_with(self, read: Callable[[Proposal, list[int]], Draft]) -> None:
        self.read = read
        for part in self.parts:
            part.read_with(read)

    def observe(self, seen: Observation) -> None:
        for part in self.parts:
            part.observe(seen)

    def finish(self, text: list[int]) -> None:
        for part in self.parts:
            part.finish(text)

    def draft(self, prefix: list[int], length: int) -> Proposal:
        return together([self.plan(prefix, length)])[0]

    def ask(self, part: Drafter, prefix: list[int], length: int) -> Plan:
        """What a part drafts; its model's forwards are counted."""
        before = part.forwards
        proposed = yield from part.plan(prefix, length)
        self.forwards += part.forwards - before
        return proposed


class Fused(Combined):
    """The tree of two drafters' drafts, in which equal beginnings are one (RASD, arXiv 2503.03434).

    Where the first is a diffusion model, branches of the second are kept if their first token is
    among the model's candidates.

    Args:
        first, second: the drafters; of equal depth, nodes of the first go before.
        most: nodes of the tree, those nearest to the text.
    """

    def __init__(self, first: Drafter, second: Drafter, most: Count = 64):
        super().__init__(first, second)
        self.most: int = conform("most", most, Count)

    def plan(self, prefix: list[int], length: int) -> Plan:
        first, second = self.parts
        one = yield from self.ask(first, prefix, length)
        other = yield from self.ask(second, prefix, length)
        paths = self.read(other, prefix).paths()
        if isinstance(one, TopM):
            likely = set(one.ids[0].tolist())
            paths = [path for path in paths if path[0] in likely]
        tree = self.read(one, prefix).with_paths(paths)
        if len(tree) <= self.most:
            return tree
        nearest = sorted(range(len(tree)), key=tree.depth.__getitem__)[: self.most]
        return tree.only(sorted(nearest))


class Switch(Combined):
    """What followed the text's end where a long end stood before, else another drafter's draft,
    whose forward a long match saves (SAM-Decoding, arXiv 2411.10666).

    Args:
        drafter: asked where the match has fewer than `at_least` tokens.
        retrieval: finds the match.
    """

    def __init__(self, drafter: Drafter, retrieval: Suffix | None = None, at_least: Count = 5):
        super().__init__(drafter, retrieval or Suffix())
        self.at_least: int = conform("at_least", at_least, Count)

    def plan(self, prefix: list[int], length: int) -> Plan:
        drafter, retrieval = self.parts
        assert isinstance(retrieval, Suffix)
        found = retrieval.draft(prefix, length)
        if retrieval.matched >= self.at_least and found:
            return found
        return (yield from self.ask(drafter, prefix, length))


def part(spec: str) -> Drafter:
    """The drafter of a name within another's options, its own options after semicolons."""
    return resolve_drafter(spec.replace(";", ","), 1, PathSearch().num_candidates)


@register_drafter("fused", paper="arXiv 2503.03434")
def fused(first: str, second: str, most: Count = 64) -> Fused:
    """The tree of two drafters' drafts: "fused,first=recycling;nodes=30,second=suffix"."""
    return Fused(part(first), part(second), most)


@register_drafter("switch", paper="arXiv 2411.10666")
def switch(drafter: str, at_least: Count = 5) -> Switch:
    """A retrieved draft where at_least tokens of the text's end stood before, else a drafter's."""
    return Switch(part(drafter), None, at_least)
