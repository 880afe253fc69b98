"""`divergence`: how far rows of logits have moved from others."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.ops.arguments import check_logits, check_place, check_vector, dense, dense_rows
from dlmdecode.ops.extension import register


def divergence(
    logits: Tensor,
    before: Tensor,
    norm_before: Tensor,
    at: Tensor,
    need: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The Kullback–Leibler divergence of each row's distribution from another one, in nats.

    logits: (N, V) as for `propose`. before: (M, V) of the same dtype; norm_before: float64 (M,),
    what this op gave for them. at: int64 (N,), the row of `before` that each is compared with;
    infinitely far where there is none, as for -1. Tokens of probability 0 add nothing. need: bool
    (N,), rows to read; the others are infinitely far, with a log-sum-exp of 0.

    Returns the divergences, float32 (N,), and log-sum-exp of `logits`, float64 (N,); NaN for rows
    that hold NaN or +inf, or nothing above -inf.
    """
    check_logits(logits)
    check_logits(before)
    shape = (len(before), logits.shape[1])
    check_place("before", before, logits.dtype, shape, logits)
    check_place("norm_before", norm_before, torch.float64, shape[:1], logits)
    check_place("at", at, torch.int64, (len(logits),), logits)
    check_vector("need", need, torch.bool, logits)
    rows = (dense_rows(logits), dense_rows(before))
    return run(*rows, norm_before.contiguous(), at.contiguous(), dense(need))


def reference(
    logits: Tensor, before: Tensor, norm_before: Tensor, at: Tensor, need: Tensor | None
) -> tuple[Tensor, Tensor]:
    z = logits.double()
    norm = z.logsumexp(1).masked_fill(~(z < torch.inf).all(1), torch.nan)
    norm = norm.masked_fill(norm == -torch.inf, torch.nan)
    known = (at >= 0) & (at < len(before))
    index = torch.where(known, at, len(before))
    past = torch.cat([before.double(), z.new_zeros(1, z.shape[1])])[index]
    past_norm = torch.cat([norm_before, norm_before.new_zeros(1)])[index]
    weight = (z - norm[:, None]).exp()
    gap = torch.where(weight > 0, weight * (z - past), 0).sum(1)
    nats = (gap + past_norm - norm).masked_fill(norm.isnan(), torch.nan)
    nats = nats.masked_fill(~known, torch.inf).float()
    if need is None:
        return nats, norm
    return nats.masked_fill(~need, torch.inf), norm.masked_fill(~need, 0)


def fake(logits, before, norm_before, at, need):
    rows = logits.shape[0]
    return logits.new_empty(rows, dtype=torch.float32), logits.new_empty(rows, dtype=torch.float64)


run = register("divergence", reference, fake)
