"""Drafts that guess the token after the next one from the logits that the next one came from."""

from __future__ import annotations

from dlmdecode.checks import Count, conform
from dlmdecode.speculation.drafters.base import Observation
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.drafters.text import TextDrafter
from dlmdecode.speculation.retrieval.pool import Pool
from dlmdecode.speculation.tree import Draft, Nodes

LONGEST = 3  # tokens of the n-grams that are looked up
KEPT = ((8, 4), (32, 3))  # of a guess of at most this rank, tokens with what follows it


@register_drafter("logitspec", paper="arXiv 2507.01449")
class LogitSpec(TextDrafter):
    """Guesses from the last logits, each with what followed it in the text (LogitSpec, arXiv
    2507.01449), beside what followed the text's own end.

    Args:
        nodes: tokens of the tree.
        retrieved: tokens of what followed the text's end.
    """

    learns = True

    def __init__(self, nodes: Nodes = 48, retrieved: Count = 10):
        self.nodes: int = conform("nodes", nodes, Nodes)
        self.retrieved: int = conform("retrieved", retrieved, Count)
        super().__init__()

    def begin(self) -> None:
        self.pool = Pool(LONGEST)
        self.guesses: list[int] = []

    def grow(self, ids: list[int]) -> None:
        self.pool.add(ids)

    def guess(self, length: int) -> Draft:
        end = self.ids[-LONGEST:]
        paths = self.pool.after(end, min(self.retrieved, length))
        left = self.nodes - sum(map(len, paths))
        for rank, token in enumerate(self.guesses[: max(left, 0)], 1):
            kept = next((most for ranks, most in KEPT if rank <= ranks), 1)
            more = self.pool.after([*end, token], min(kept, length) - 1) if kept > 1 else []
            paths.append([token, *more[0]] if more else [token])
        tree = Draft.joined(paths)
        return tree.only(list(range(min(len(tree), self.nodes))))

    def observe(self, seen: Observation) -> None:
        row = seen.accepted[-1] + 1 if seen.accepted else 0
        best = seen.scores[row].topk(min(self.nodes, seen.scores.shape[1])).indices.tolist()
        self.guesses = [token for token in best if token != seen.written[-1]]
