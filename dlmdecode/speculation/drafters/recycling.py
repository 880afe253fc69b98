"""Drafts from the tokens that the verifier had in mind when it read the same token before."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from dlmdecode.checks import Count, conform
from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.retrieval.growing import grown
from dlmdecode.speculation.tree import Draft, Nodes

# how often the r-th best token of a token's last row is the one that follows it
LOG = np.log([0.55, 0.13, 0.07, 0.05, 0.035, 0.025, 0.02, 0.015])


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
    learns = True
    scored = True

    def __init__(self, nodes: Nodes = 48, depth: Count = 6, keep: bool = False):
        self.nodes: int = conform("nodes", nodes, Nodes)
        self.depth: int = conform("depth", depth, Count)
        self.keep: bool = conform("keep", keep, bool)
        self.copyable = not self.keep
        self.best: np.ndarray | None = None  # (V + 1, 8), -1 where nothing is known, as of id V

    def reset(self) -> None:
        if not self.keep:
            self.best = None

    def draft(self, prefix: list[int], length: int) -> Draft:
        if self.best is None:
            return Draft.chain([])
        rank, parent, order, levels = ranked_tree(4 * self.nodes, self.depth)
        token = np.full(len(rank) + 1, -1)
        token[-1] = min(prefix[-1], len(self.best) - 1)  # where the parent -1 finds it
        for level, above, by in levels[:length]:
            token[level] = self.best[token[above], by]
        kept = (token[:-1] >= 0).nonzero()[0]
        if len(kept) > self.nodes:
            kept = kept[order[kept] <= np.partition(order[kept], self.nodes - 1)[self.nodes - 1]]
        index = np.full(len(token), -1)
        index[kept] = np.arange(len(kept))
        return Draft.known(token[kept], index[parent[kept]], LOG[rank[kept]])

    def observe(self, seen: Observation) -> None:
        if self.best is None:
            self.best = np.full((seen.scores.shape[1] + 1, len(LOG)), -1)
        known = 1 if seen.before is None else len(seen.before) + 1
        ids, unknown = (*seen.text[-known:], *seen.draft.token), len(self.best) - 1
        last = {min(one, unknown): row for row, one in enumerate(ids)}  # of those there twice
        rows = seen.best(len(LOG), list(last.values())).ids.numpy()
        self.best[list(last), : rows.shape[1]] = rows
        self.best[-1] = -1


class Ranked(NamedTuple):
    """A tree of ranks, depth first; each (n,) int64."""

    rank: np.ndarray
    parent: np.ndarray
    order: np.ndarray  # how many nodes are likelier
    levels: list[tuple[np.ndarray, ...]]  # of each depth the nodes, their parents and ranks


@cache
def ranked_tree(nodes: int, depth: int) -> Ranked:
    """The likeliest nodes where all tokens are known."""
    guesses = range(len(LOG)), LOG.tolist()
    likeliest = grown(lambda path: guesses, depth, nodes)
    order = likeliest.depth_first()
    tree = likeliest.only(order)
    rank, parent, level = np.array(tree.token), np.array(tree.parent), np.array(tree.depth)
    at = [(level == one).nonzero()[0] for one in range(level.max() + 1)]
    return Ranked(rank, parent, np.array(order), [(one, parent[one], rank[one]) for one in at])
