"""Drafts from the distributions that the verifier had after the same n-grams."""

from __future__ import annotations

from math import log
from typing import Annotated

from dlmdecode.checks import Between, Count, conform
from dlmdecode.speculation.diffuspec.lattice import FUSED
from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.retrieval.growing import Guesses, best_first
from dlmdecode.speculation.tree import Draft, Nodes

NOTHING: Guesses = (), ()
BACKOFF = log(0.4)  # for each token that an n-gram is shorter (Brants et al. 2007)


@register_drafter("ngram", paper="arXiv 2407.12021, 2506.04708")
class ObservedNGrams(Drafter):
    """A tree of what the verifier thought likely after the same last tokens (ADED, arXiv
    2407.12021; STAND, 2506.04708), accepted or not.

    Of each n-gram the last distribution is kept, its best tokens. A path goes on with those of its
    longest known end.

    Args:
        order: tokens of the longest n-gram that is looked up, its guess included.
        nodes: tokens of the tree, the likeliest.
        depth: tokens of its longest path.
        candidates: best tokens that are kept of a distribution.
        keep: remember from one text to the next.
    """

    prompt_scores = 256
    learns = True
    scored = True

    def __init__(
        self,
        order: Count = 4,
        nodes: Nodes = 32,
        depth: Count = 12,
        candidates: Annotated[int, Between(1, FUSED)] = 4,
        keep: bool = False,
    ):
        self.order: int = conform("order", order, Count)
        self.nodes: int = conform("nodes", nodes, Nodes)
        self.depth: int = conform("depth", depth, Count)
        self.candidates: int = conform("candidates", candidates, Annotated[int, Between(1, FUSED)])
        self.keep: bool = conform("keep", keep, bool)
        self.copyable = not self.keep
        self.seen: dict[tuple[int, ...], Guesses] = {}

    def reset(self) -> None:
        if not self.keep:
            self.seen = {}

    def draft(self, prefix: list[int], length: int) -> Draft:
        longest = self.order - 1
        end = prefix[-longest:] if longest else []
        get = self.seen.get

        def after(path: list[int]) -> Guesses:
            ids = (*end, *path)[-longest:] if longest else ()
            for known in range(len(ids) + 1):  # tokens that are left out
                if (found := get(ids[known:])) is not None:
                    less = known * BACKOFF
                    return (found[0], [own + less for own in found[1]]) if known else found
            return NOTHING

        return best_first(after, min(length, self.depth), self.nodes)

    def observe(self, seen: Observation) -> None:
        top, text, longest = seen.best(self.candidates), seen.text, self.order - 1
        rows = list(zip(top.ids.numpy().tolist(), top.log_prob.numpy().tolist(), strict=True))
        first = len(text) + len(seen.draft) + 1 - len(rows)  # tokens before the first row
        ends = [tuple(text[max(0, at - longest) : at]) for at in range(first, len(text) + 1)]
        last = len(ends)
        for token, parent in zip(seen.draft.token, seen.draft.parent, strict=True):
            ends.append((*ends[last + parent], token)[-longest:] if longest else ())
        for known in range(max(map(len, ends)) + 1):  # tokens that are left out
            self.seen.update(zip([end[known:] for end in ends], rows, strict=True))
