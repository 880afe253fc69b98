"""`lattice_tree`: the likeliest paths through a lattice of draft tokens, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count as counter

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import integer
from dlmdecode.ops.extension import register
from dlmdecode.ops.path_search import lattice_arguments, ngram_scores


def lattice_tree(
    ids: Tensor,
    log_prob: Tensor,
    count: Tensor,
    *,
    keys: Sequence[Tensor],
    log_probs: Sequence[Tensor],
    contexts: Sequence[Tensor],
    weights: Sequence[Tensor],
    floor: float,
    prefix: Tensor,
    nodes: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The tree of at most `nodes` tokens with the highest sum of path probabilities; on the CPU.

    A token y at position i has lam log_prob(y) + (1 - lam) log p_ngram(y | path), normalised over
    the position's candidates, and the candidates' summed probability, at most 1, is shared out so.
    A path's probability is the product; nothing follows an EOS.

    The other arguments as for `path_search`.

    Returns the nodes in the order of their path probabilities, parents before children: ids and
    indices of the parents (-1: the prefix), int64, and log probabilities after the parent, float64.
    Of equal ones the first found wins. Raises ValueError for arguments that do not fit.
    """
    nodes = integer("nodes", nodes)
    require(nodes >= 1, "nodes", nodes, "give at least 1")
    tables = keys, log_probs, contexts, weights
    return run(*lattice_arguments(ids, log_prob, count, tables, floor, prefix, nodes, lam, eos_ids))


def reference(
    ids: Tensor,
    log_prob: Tensor,
    count: Tensor,
    keys: list[Tensor],
    log_probs: list[Tensor],
    contexts: list[Tensor],
    weights: list[Tensor],
    floor: float,
    prefix: Tensor,
    nodes: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    tables = list(zip(keys, log_probs, contexts, weights, strict=True))
    ends, order = set(eos_ids.tolist()), counter()
    found: list[tuple[int, int, float]] = []
    heap: list[tuple[float, int, int, int, float, list[int]]] = []

    def offer(parent: int, above: float, path: list[int]) -> None:
        if len(path) == len(ids):
            return
        used = int(count[len(path)])
        token, own = ids[len(path)][:used], log_prob[len(path)][:used].double()
        gain = lam * own
        if lam < 1:
            text = torch.cat([prefix, torch.tensor(path, dtype=torch.int64)])
            gain = gain + (1 - lam) * ngram_scores(tables, floor, text, token)
        gain = gain + own.exp().sum().clamp(max=1).log() - gain.exp().sum().log()
        for one, score in zip(token.tolist(), gain.tolist(), strict=True):
            heappush(heap, (-above - score, next(order), parent, one, score, path))

    offer(-1, 0.0, [])
    while heap and len(found) < nodes:
        score, _, parent, token, own_score, path = heappop(heap)
        found.append((token, parent, own_score))
        if token not in ends:
            offer(len(found) - 1, -score, [*path, token])
    tokens, parents, scores = zip(*found, strict=True) if found else ((), (), ())
    int64, float64 = torch.int64, torch.float64
    return (
        torch.tensor(tokens, dtype=int64),
        torch.tensor(parents, dtype=int64),
        torch.tensor(scores, dtype=float64),
    )


def fake(ids, *rest):
    length = torch.library.get_ctx().new_dynamic_size()
    found = ids.new_empty(length)
    return found, ids.new_empty(length), ids.new_empty(length, dtype=torch.float64)


run = register("lattice_tree", reference, fake)
