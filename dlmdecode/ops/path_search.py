"""`path_search`: the best path through a lattice of draft tokens (DiffuSpec, arXiv 2510.02358)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_lattice, check_numbers, integer, real
from dlmdecode.ops.extension import register
from dlmdecode.ops.splitmix import extend, key_of


def path_search(
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
    beam: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Tensor, float]:
    """The best path through a lattice of draft tokens; on the CPU.

    score(path) = sum over i of lam log_prob(y_i) + (1 - lam) log p_ngram(y_i | y_<i), by a beam
    search from left to right; a path that ends in EOS is finished and keeps competing.

    ids int64 and log_prob float32 (K, M): the lattice; count int64 (K,): candidates in use, 1 to M.
    keys, log_probs: for each order n of the n-gram model, sorted int64 keys of n tokens and float32
        scores. contexts, weights: the same for contexts of n - 1 tokens and their back-off weights
        (not read for order 1). Keys as in `splitmix.py`; `floor`: a token unknown to order 1.
    prefix: int64 (P,), the tokens before the lattice, at least as many as the order less one.

    Returns the ids of the path, int64, and its score. Of equal scores the one found first wins.
    Raises ValueError for arguments that do not fit.
    """
    beam = integer("beam", beam)
    require(beam >= 1, "beam", beam, "give at least 1")
    tables = keys, log_probs, contexts, weights
    path, score = run(
        *lattice_arguments(ids, log_prob, count, tables, floor, prefix, beam, lam, eos_ids)
    )
    return path, score.item()


def lattice_arguments(
    ids: Tensor,
    log_prob: Tensor,
    count: Tensor,
    tables: tuple[Sequence[Tensor], ...],
    floor: float,
    prefix: Tensor,
    size: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Any, ...]:
    """What a search of a lattice is given, checked, and in one piece each; raises as it does."""
    names = "keys", "log_probs", "contexts", "weights"
    check_lattice(ids, log_prob, eos_ids)
    check_count(count, ids)
    check_tables(dict(zip(names, tables, strict=True)))
    check_numbers("prefix", prefix, torch.int64)
    lam, floor = real("lam", lam), real("floor", floor)
    enough = len(prefix) >= len(tables[0]) - 1
    require(enough, "prefix", prefix, "give at least as many tokens as the order less one")
    require(0 <= lam <= 1, "lam", lam, "give a weight from 0 to 1")
    lattice = (ids.contiguous(), log_prob.float().contiguous(), count.contiguous())
    pieces = ([one.contiguous() for one in each] for each in tables)
    return *lattice, *pieces, floor, prefix.contiguous(), size, lam, eos_ids.contiguous()


def check_count(count: Any, ids: Tensor) -> None:
    check_numbers("count", count, torch.int64)
    require(count.shape == ids.shape[:1], "count", count, "give one for each row of ids")
    used = count.tolist() or [1]
    fits = min(used) >= 1 and max(used) <= ids.shape[1]
    require(fits, "count", used, "give numbers from 1 to the width of ids")


def check_tables(arrays: dict[str, Any]) -> None:
    """For each order of an n-gram model, sorted keys and as many numbers."""
    orders = len(arrays["keys"]) if isinstance(arrays["keys"], (list, tuple)) else 0
    for name, listed in arrays.items():
        fits = isinstance(listed, (list, tuple)) and 0 < len(listed) == orders
        require(fits, name, listed, "give a list with one array for each order")
    for keys, numbers in (("keys", "log_probs"), ("contexts", "weights")):
        for order, (key, value) in enumerate(zip(arrays[keys], arrays[numbers], strict=True)):
            check_numbers(f"{keys}[{order}]", key, torch.int64)
            check_numbers(f"{numbers}[{order}]", value, torch.float32)
            fix = f"give one for each of the {len(key)} keys"
            require(len(key) == len(value), f"{numbers}[{order}]", value, fix)


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
    beam: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    tables = list(zip(keys, log_probs, contexts, weights, strict=True))
    ends = set(eos_ids.tolist())
    paths: list[tuple[float, list[int]]] = [(0.0, [])]
    for row, own, used in zip(ids, log_prob, count.tolist(), strict=True):
        token = row[:used]
        found = []
        for score, path in paths:
            if path and path[-1] in ends:
                found.append((score, path))
                continue
            gain = lam * own[:used].double()
            if lam < 1:
                text = torch.cat([prefix, torch.tensor(path, dtype=torch.int64)])
                gain = gain + (1 - lam) * ngram_scores(tables, floor, text, token)
            pairs = zip(token.tolist(), gain.tolist(), strict=True)
            found += [(score + more, [*path, one]) for one, more in pairs]
        paths = sorted(found, key=lambda pair: -pair[0])[:beam]
    score, path = paths[0]
    return torch.tensor(path, dtype=torch.int64), torch.tensor(score, dtype=torch.float64)


def ngram_scores(
    tables: list[tuple[Tensor, Tensor, Tensor, Tensor]], floor: float, text: Tensor, token: Tensor
) -> Tensor:
    """Scores (M,) of tokens after `text`, backing off from the longest context; float64."""
    backoff, score = 0.0, torch.full(token.shape, torch.nan, dtype=torch.float64)
    for order in range(len(tables), 0, -1):
        keys, log_probs, contexts, weights = tables[order - 1]
        context = key_of(text[len(text) - order + 1 :])
        found = backoff + lookup(keys, log_probs, extend(context, token))
        score = score.where(~score.isnan(), found)
        if order > 1:
            backoff += lookup(contexts, weights, context).nan_to_num(0).item()
    return score.where(~score.isnan(), backoff + floor)


def lookup(keys: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """The values, float64, of the wanted ones of sorted keys; NaN for those that are not there."""
    if not len(keys):
        return torch.full(wanted.shape, torch.nan, dtype=torch.float64)
    where = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return values[where].double().where(keys[where] == wanted, torch.nan)


def fake(ids, *rest):
    length = torch.library.get_ctx().new_dynamic_size()
    return ids.new_empty(length), ids.new_empty((), dtype=torch.float64)


run = register("path_search", reference, fake)
