"""The fused ops in plain torch: their specification, the oracle of their tests, and the fallback.

Every function here is what the op of the same name in `dlmdecode.ops` means; arguments are
described there. Nothing is fused, so each makes several tensors of the size of the logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlmdecode.philox import gumbel

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
