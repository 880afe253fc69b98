"""Trees that grow by their likeliest node (SpecInfer, OPT-Tree and others have such trees).

Where a node's score is what its parent's is and its own log probability, the nodes taken are those
of the highest summed probability that a tree of as many nodes can have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from dlmdecode.speculation.tree import Draft

Guesses = tuple[Sequence[int], Sequence[float]]  # tokens, likeliest first; log probabilities


def best_first(after: Callable[[list[int]], Guesses], length: int, nodes: int) -> Draft:
    """The tree of the `nodes` likeliest tokens up to `length` from the text, depth first.

    Args:
        after: what may follow a path from the text's end, none or more tokens; equal scores go to
            the earlier found.
    """
    tree = grown(after, length, nodes)
    return tree.only(tree.depth_first())


def grown(after: Callable[[list[int]], Guesses], length: int, nodes: int) -> Draft:
    """The same, likeliest nodes first."""
    token: list[int] = []
    parent: list[int] = []
    log_prob: list[float] = []
    heap: list[tuple[float, int, int, int, list[int], Guesses]] = []

    def wait(above: float, of: int, path: list[int]) -> None:
        """For the turn of the best guess after a path, of node `of` and minus its score."""
        if (guesses := after(path))[0]:
            heappush(heap, (above - guesses[1][0], next(found), of, 0, path, guesses))

    found = count()
    wait(0.0, -1, [])
    while heap and len(token) < nodes:
        below, _, of, rank, path, guesses = heappop(heap)  # below: minus the node's score
        tokens, log_probs = guesses
        token.append(tokens[rank])
        parent.append(of)
        log_prob.append(log_probs[rank])
        if rank + 1 < len(tokens):
            beside = below + log_probs[rank] - log_probs[rank + 1]
            heappush(heap, (beside, next(found), of, rank + 1, path, guesses))
        if len(path) + 1 < length:
            wait(below, len(token) - 1, [*path, tokens[rank]])
    return Draft.known(token, parent, log_prob)
