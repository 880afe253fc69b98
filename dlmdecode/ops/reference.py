"""The fused ops in plain torch: their specification, the oracle of their tests, and the fallback.

Every function here is what the op of the same name in `dlmdecode.ops` means; arguments are
described there. Nothing is fused, so each makes several tensors of the size of the logits.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from dlmdecode.ops.philox import gumbel

UNNEEDED, BAD = -1, -2  # in place of a token: a row that was not asked for, or that has no answer


class Proposed(NamedTuple):
    """What one row of logits says; each field (N,)."""

    token: Tensor  # int64; -1 where not needed, -2 where the row has no answer
    log_prob: Tensor  # of `token` under the untempered logits; precise where it is near 0
    margin: Tensor  # best minus second best logit that may be proposed; inf where there is one
    entropy: Tensor  # nats, of the untempered softmax

    @property
    def probability_margin(self) -> Tensor:
        """Probability of the best minus that of the second best, for temperature 0."""
        return self.log_prob.exp() * -torch.expm1(-self.margin)


class Statistics(NamedTuple):
    token: Tensor
    log_probs: Tensor
    margin: Tensor
    entropy: Tensor


def combined(
    logits: Tensor,
    uncond: Tensor | None,
    cfg_scale: float,
    edits: tuple[Tensor, Tensor] | None,
    dtype: torch.dtype,
) -> Tensor:
    """The logits (N, V) that are decided on, in the dtype of the arithmetic; a new tensor."""
    z = logits.to(torch.promote_types(dtype, logits.dtype), copy=True)
    if uncond is not None:
        u = uncond.to(z.dtype)
        z = torch.where(z == -torch.inf, z, u + (z - u) * (1 + cfg_scale))  # a ban stays a ban
    if edits is not None:
        ids, values = edits
        used = (ids >= 0) & (ids < z.shape[1])
        z.scatter_add_(1, ids.where(used, 0), values.to(z.dtype).where(used, 0))
    return z


def statistics(z: Tensor, allowed: Tensor) -> Statistics:
    """Lowest best id, log-softmax precise near 0, margin and entropy of rows (N, V)."""
    best, pivot = z.max(dim=1, keepdim=True)
    weight = (z - best).exp().scatter(1, pivot, 0)
    log_probs = (z - best) - weight.sum(1, keepdim=True).log1p()
    entropy = -(log_probs.exp() * log_probs.clamp(min=-1e30)).sum(1)
    runner_up = allowed.scatter(1, allowed.argmax(1, keepdim=True), -torch.inf)
    margin = allowed.amax(1) - runner_up.amax(1)
    return Statistics(allowed.argmax(1), log_probs, margin, entropy)


def propose(
    logits: Tensor, *, need: Tensor | None = None, dtype: torch.dtype = torch.float32, **how
) -> Proposed:
    rows = needed_rows(logits, need)
    z, exclude, temperature, noise = prepared(logits, rows, dtype=dtype, **how)
    return scattered(decide(z, exclude, temperature, noise), rows, len(logits), dtype)


def credit(
    logits: Tensor,
    ids: Tensor,
    credits: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    need: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **how,
) -> tuple[Proposed, Tensor, Tensor]:
    rows = needed_rows(logits, need)
    z, exclude, temperature, noise = prepared(logits, rows, dtype=dtype, **how)
    base = decide(z, exclude, 0.0, None)
    new_ids, new_credits = credited(ids[rows], credits[rows], base, beta, gamma)
    boost = (alpha * new_credits.log1p()).to(z.dtype)
    z.scatter_add_(1, new_ids.clamp(min=0), boost.where(new_ids >= 0, 0))
    found = decide(z, exclude, temperature, noise)
    return (
        scattered(found, rows, len(logits), dtype),
        ids.index_copy(0, rows, new_ids),
        credits.index_copy(0, rows, new_credits),
    )


def credited(
    ids: Tensor, credits: Tensor, base: Proposed, beta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Slots (N, T) after one step: all decay, the base's best token gains probability ** gamma.

    A token without a slot takes the first empty one, or the smallest credit's where all are taken.
    """
    before = credits
    credits = credits.masked_fill(ids < 0, 0) * beta
    top = base.token[:, None]
    found = ids == top
    rank = torch.where(ids < 0, -1.0, credits).masked_fill(found, -2.0)
    slot = rank.argmin(1, keepdim=True)
    held = credits.gather(1, slot).where(found.gather(1, slot), 0)
    gain = base.log_prob.float().exp().pow(gamma)[:, None]
    valid = top >= 0
    ids = torch.where(valid, ids.scatter(1, slot, top), ids)
    return ids, torch.where(valid, credits.scatter(1, slot, held + gain), before)


def prepared(
    logits: Tensor,
    rows: Tensor,
    *,
    exclude: int = -1,
    temperature: float = 0.0,
    seed: int = 0,
    stream: Tensor | None = None,
    position: Tensor | None = None,
    uncond: Tensor | None = None,
    cfg_scale: float = 0.0,
    edits: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, int, float, Tensor | None]:
    """The combined logits of the rows asked for, and their noise."""
    z = combined(
        logits[rows],
        None if uncond is None else uncond[rows],
        cfg_scale,
        None if edits is None else (edits[0][rows], edits[1][rows]),
        dtype,
    )
    if temperature == 0:
        return z, exclude, temperature, None
    stream = torch.arange(len(logits), device=logits.device) if stream is None else stream
    position = torch.zeros_like(stream) if position is None else position
    noise = gumbel(seed, stream[rows], position[rows], logits.shape[1])
    return z, exclude, temperature, noise


def scattered(found: Proposed, rows: Tensor, count: int, dtype: torch.dtype) -> Proposed:
    """Put the proposals of `rows` among `count` rows, the others marked as not needed."""
    empties = (UNNEEDED, -torch.inf, 0, 0)
    kinds = (torch.int64, dtype, dtype, dtype)
    return Proposed(
        *(
            torch.full((count,), empty, dtype=kind, device=rows.device).index_copy(
                0, rows, value.to(kind)
            )
            for value, empty, kind in zip(found, empties, kinds, strict=True)
        )
    )


def needed_rows(logits: Tensor, need: Tensor | None) -> Tensor:
    if need is None:
        return torch.arange(len(logits), device=logits.device)
    return need.nonzero()[:, 0]


def decide(z: Tensor, exclude: int, temperature: float, noise: Tensor | None) -> Proposed:
    """The proposal of combined logits (N, V); rows without an answer are marked."""
    if not len(z):
        empty = z.new_empty(0)
        return Proposed(empty.long(), empty, empty, empty)
    allowed = z.clone()
    if exclude >= 0:
        allowed[:, exclude] = -torch.inf
    found = statistics(z, allowed)
    token = found.token
    if noise is not None:
        inverse = torch.tensor(1 / temperature, dtype=z.dtype, device=z.device)
        token = (allowed * inverse + noise).argmax(1)
    log_prob = found.log_probs.gather(1, token[:, None])[:, 0]
    bad = ~(z < torch.inf).all(1) | (allowed.amax(1) == -torch.inf)
    return Proposed(
        token.masked_fill(bad, BAD),
        log_prob.masked_fill(bad, -torch.inf),
        found.margin.masked_fill(bad, 0),
        found.entropy.masked_fill(bad, 0),
    )


class Selection(NamedTuple):
    """The parameters of `commit`'s rule, checked."""

    rule: str
    level: float = 0.0  # threshold, factor, delta or gamma
    relaxed: float = 0.0
    radius: int = 0
    quota: Tensor | None = None
    entropy: Tensor | None = None
    minimum: int = 1


def commit(
    tokens: Tensor,
    proposed: Tensor,
    confidence: Tensor,
    lo: Tensor,
    hi: Tensor,
    mask_id: int,
    how: Selection,
) -> Tensor:
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (position >= lo[:, None]) & (position < hi[:, None])
    eligible = (tokens == mask_id) & inside & (proposed >= 0)
    sure = confidence.masked_fill(~eligible | confidence.isnan(), -torch.inf)
    order = sure.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, (~eligible).gather(1, order).long().argsort(dim=1, stable=True))
    open_count = eligible.sum(1)
    length = passing(how, sure.gather(1, order).double(), order, confidence.dtype)
    length = length.clamp(min=how.minimum).minimum(open_count)
    taken = torch.zeros_like(eligible).scatter(1, order, position < length[:, None])
    if how.rule == "relaxed":
        level = torch.tensor([how.level, how.relaxed], dtype=confidence.dtype)
        anchor = (sure >= level[0].item()).double()[:, None]
        width = 2 * how.radius + 1
        near = torch.nn.functional.max_pool1d(anchor, width, 1, how.radius)[:, 0] > 0
        taken |= eligible & ((sure >= level[0].item()) | (near & (sure >= level[1].item())))
    tokens.copy_(torch.where(taken, proposed, tokens))
    return taken.sum(1)


def passing(how: Selection, sure: Tensor, order: Tensor, dtype: torch.dtype) -> Tensor:
    """How many of the most confident positions (B, L), in `order`, a rule takes: (B,)."""
    rank = torch.arange(1, sure.shape[1] + 1, device=sure.device)
    if how.rule == "topk":
        assert how.quota is not None
        return how.quota
    if how.rule == "threshold":
        passes = sure >= torch.tensor(how.level, dtype=dtype).item()
    elif how.rule == "factor":
        passes = (rank + 1) * (1 - sure) < how.level
    elif how.rule == "frechet":
        passes = (sure.cumsum(1) - (rank - 1)).clamp(min=0) - (1 - sure) > how.level
    elif how.rule == "entropy_bound":
        assert how.entropy is not None
        entropy = how.entropy.gather(1, order).double()
        passes = entropy.cumsum(1) - entropy.cummax(1).values <= how.level
    else:
        passes = torch.zeros_like(sure, dtype=torch.bool)
    return passes.long().cumprod(1).sum(1)


def topm(logits: Tensor, m: int) -> tuple[Tensor, Tensor]:
    z = logits.to(torch.promote_types(torch.float32, logits.dtype))
    kept = min(m, z.shape[1])
    values, ids = z.sort(dim=1, descending=True, stable=True)
    values, ids = values[:, :kept], ids[:, :kept]
    rest = (z - values[:, :1]).exp().scatter(1, ids[:, :1], 0).sum(1, keepdim=True)
    log_prob = (values - values[:, :1] - rest.log1p()).float()
    bad = ~(z < torch.inf).all(1, keepdim=True) | (values[:, :1] == -torch.inf)
    ids = ids.masked_fill(values == -torch.inf, UNNEEDED).masked_fill(bad, BAD)
    log_prob = log_prob.masked_fill(ids < 0, -torch.inf)
    wide = (len(z), m)
    full_ids = ids.new_full(wide, UNNEEDED).masked_fill(bad, BAD)
    full_ids[:, :kept] = ids
    full_log_prob = log_prob.new_full(wide, -torch.inf)
    full_log_prob[:, :kept] = log_prob
    return full_ids, full_log_prob


def candidates(
    ids: Tensor, log_prob: Tensor, mass: float, eos_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    probability = log_prob.double().exp()
    before = probability.cumsum(1).roll(1, 1)
    before[:, :1] = 0
    kept = (before < mass) & (log_prob > -torch.inf)
    kept[:-1] &= ~torch.isin(ids[:-1], eos_ids)
    order = kept.int().argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), log_prob.gather(1, order), kept.sum(1)


def mix(z: int) -> int:
    """splitmix64's finaliser (Steele et al. 2014) of 64 bits."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def key_of(ids: list[int]) -> int:
    """The signed key that an n-gram model files these ids under."""
    key = 0
    for token in ids:
        key = mix((key + token + 0x9E3779B97F4A7C15) % 2**64)
    return key - 2**64 if key >= 2**63 else key


def ngram_score(tables: list[dict[str, dict[int, float]]], floor: float, ids: list[int]) -> float:
    """Score of the last of `ids` after the others, backing off from the longest context."""
    total = 0.0
    for order in range(len(tables), 0, -1):
        table = tables[order - 1]
        found = table["grams"].get(key_of(ids[-order:]))
        if found is not None:
            return total + found
        if order > 1:
            total += table["contexts"].get(key_of(ids[-order:-1]), 0.0)
    return total + floor


def path_search(
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
    def table(key: Tensor, value: Tensor) -> dict[int, float]:
        return dict(zip(key.tolist(), value.tolist(), strict=True))

    tables = [
        {"grams": table(key, value), "contexts": table(context, weight)}
        for key, value, context, weight in zip(keys, log_probs, contexts, weights, strict=True)
    ]
    ends, before = set(eos_ids.tolist()), prefix.tolist()
    paths: list[tuple[float, list[int]]] = [(0.0, [])]
    for row, own, used in zip(ids.tolist(), log_prob.tolist(), count.tolist(), strict=True):
        found = []
        for score, path in paths:
            if path and path[-1] in ends:
                found.append((score, path))
                continue
            for token, probability in zip(row[:used], own[:used], strict=True):
                gain = lam * probability
                if lam < 1:
                    gain += (1 - lam) * ngram_score(tables, floor, [*before, *path, token])
                found.append((score + gain, [*path, token]))
        paths = sorted(found, key=lambda pair: -pair[0])[:beam]
    score, path = paths[0]
    return torch.tensor(path, dtype=torch.int64), torch.tensor(score, dtype=torch.float64)


def count_ngrams(ids: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    text = [-1] * (order - 1) + ids.tolist()
    ends = range(order, len(text) + 1)
    spans = [(end - n, end) for n in range(1, order + 1) for end in ends]
    pairs = [(key_of(text[a:b]), key_of(text[a : b - 1])) for a, b in spans]
    total = Counter(context for _, context in pairs)
    found = sorted(Counter(pairs).items())
    scores = [math.log(count / total[context]) for (_, context), count in found]
    return (
        torch.tensor([key for (key, _), _ in found], dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(sorted(total), dtype=torch.int64),
    )
