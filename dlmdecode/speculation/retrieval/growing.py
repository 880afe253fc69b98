"""Trees that grow by their likeliest node (SpecInfer, OPT-Tree and others have such trees).

Where a node's score is what its parent's is and its own log probability, the nodes taken are those
of the highest summed probability that a tree of as many nodes can have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from dlmdecode.speculation.tree import Draft

Guesses = Sequence[tuple[int, float]]  # tokens with their log probabilities, likeliest first


def best_first(after: Callable[[list[int]], Guesses], length: int, nodes: int) -> Draft:
    """The tree of the `nodes` likeliest tokens up to `length` from the text.

    Args:
        after: what may follow a path from the text's end; equal scores go to the earlier found.
    """
    token: list[int] = []
    parent: list[int] = []
    log_prob: list[float] = []
    order = count()
    heap: list[tuple[float, int, int, int, list[int], Guesses]] = []

    def offer(above: float, of: int, rank: int, path: list[int], guesses: Guesses) -> None:
        if rank < len(guesses):
            score = above + guesses[rank][1]
            heappush(heap, (-score, next(order), of, rank, path, guesses))

    offer(0.0, -1, 0, [], after([]))
    while heap and len(token) < nodes:
        score, _, of, rank, path, guesses = heappop(heap)
        one, own = guesses[rank]
        offer(-score - own, of, rank + 1, path, guesses)
        token.append(one)
        parent.append(of)
        log_prob.append(own)
        if len(path) + 1 < length:
            longer = [*path, one]
            offer(-score, len(token) - 1, 0, longer, after(longer))
    return Draft(token, parent, log_prob)
