"""Drafts from the tokens that the verifier had in mind when it read the same token before."""

from __future__ import annotations

from math import log

from dlmdecode.checks import Count, conform
from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.retrieval.growing import Guesses, best_first
from dlmdecode.speculation.tree import Draft

# how often the r-th best token of a token's last row is the one that follows it
RANKS = [log(share) for share in (0.55, 0.13, 0.07, 0.05, 0.035, 0.025, 0.02, 0.015)]


@register_drafter("recycling", paper="arXiv 2408.08696")
class Recycling(Drafter):
    """A tree of the eight best tokens that the verifier last had after each token (Token
    Recycling, arXiv 2408.08696), those of rejected drafts included.

    Args:
        nodes: tokens of the tree, by the likeliest ranks.
        depth: tokens of its longest path.
        keep: remember from one text to the next.
    """

    prompt_scores = 256

    def __init__(self, nodes: Count = 48, depth: Count = 6, keep: bool = False):
        self.nodes: int = conform("nodes", nodes, Count)
        self.depth: int = conform("depth", depth, Count)
        self.keep: bool = conform("keep", keep, bool)
        self.best: dict[int, list[int]] = {}

    def reset(self) -> None:
        if not self.keep:
            self.best = {}

    def draft(self, prefix: list[int], length: int) -> Draft:
        def after(path: list[int]) -> Guesses:
            best = self.best.get(path[-1] if path else prefix[-1], ())
            return list(zip(best, RANKS, strict=False))

        return best_first(after, min(length, self.depth), self.nodes)

    def observe(self, seen: Observation) -> None:
        rows = seen.best(len(RANKS)).ids.tolist()
        text = seen.text[len(seen.text) + len(seen.draft) - len(rows) :]
        self.best.update(zip((*text, *seen.draft.token), rows, strict=True))
