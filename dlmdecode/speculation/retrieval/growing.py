"""Trees that grow by their likeliest node (SpecInfer, OPT-Tree and others have such trees).

Where a node's score is what its parent's is and its own log probability, the nodes taken are those
of the highest summed probability that a tree of as many nodes can have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from dlmdecode.speculation.tree import Draft

Guesses = Sequence[tuple[int, float]]  # tokens with their log probabilities, likeliest first


def best_first(after: Callable[[list[int]], Guesses], length: int, nodes: int) -> Draft:
    """The tree of the `nodes` likeliest tokens up to `length` from the text, depth first.

    Args:
        after: what may follow a path from the text's end; equal scores go to the earlier found.
    """
    tree = grown(after, length, nodes)
    return tree.only(tree.depth_first())


def grown(after: Callable[[list[int]], Guesses], length: int, nodes: int) -> Draft:
    """The same, likeliest nodes first."""
    token: list[int] = []
    parent: list[int] = []
    log_prob: list[float] = []
    heap: list[tuple[float, int, int, int, list[int], Guesses]] = []
    order = 0
    if guesses := after([]):
        heap.append((-guesses[0][1], order, -1, 0, [], guesses))
    while heap and len(token) < nodes:
        below, _, of, rank, path, guesses = heappop(heap)  # below: minus the node's score
        one, own = guesses[rank]
        token.append(one)
        parent.append(of)
        log_prob.append(own)
        if rank + 1 < len(guesses):
            order += 1
            beside = below + own - guesses[rank + 1][1]
            heappush(heap, (beside, order, of, rank + 1, path, guesses))
        if len(path) + 1 < length and (guesses := after(longer := [*path, one])):
            order += 1
            heappush(heap, (below - guesses[0][1], order, len(token) - 1, 0, longer, guesses))
    return Draft.known(token, parent, log_prob)
