"""The fused ops in plain torch: their specification, the oracle of their tests, and the fallback."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Proposed(NamedTuple):
    token: Tensor
    log_prob: Tensor
    margin: Tensor
    entropy: Tensor


def propose(
    logits: Tensor,
    *,
    need: Tensor | None = None,
    exclude: int = -1,
    temperature: float = 0.0,
    seed: int = 0,
    stream: Tensor | None = None,
    position: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Proposed:
    z = logits.to(dtype)
    if need is not None:
        z = torch.where(need[:, None], z, 0.0)
    lse = z.logsumexp(-1)
    p = (z - lse[:, None]).exp()
    entropy = -(p * (z - lse[:, None]).clamp(min=-1e30)).sum(-1)
    allowed = z.clone()
    if exclude >= 0:
        allowed[:, exclude] = -torch.inf
    top, ids = allowed.topk(2, -1)
    token = allowed.argmax(-1)
    return Proposed(token, (top[:, 0] - lse), top[:, 0] - top[:, 1], entropy)


def credit(
    logits, ids, credits, *, alpha, beta, gamma, need=None, exclude=-1, dtype=torch.float32, **how
):
    base = propose(logits, need=need, exclude=exclude, dtype=dtype)
    credits = credits * beta
    gain = base.log_prob.exp().float().pow(gamma)
    if need is not None:
        gain = gain * need
    hit = (ids == base.token[:, None]) & (credits > 0)
    found = hit.any(1)
    slot = torch.where(found, hit.int().argmax(1), credits.argmin(1))
    ids = ids.scatter(1, slot[:, None], base.token[:, None])
    old = torch.where(found, credits.gather(1, slot[:, None])[:, 0], torch.zeros_like(gain))
    credits = credits.scatter(1, slot[:, None], (old + gain)[:, None])
    z = logits.to(dtype, copy=True)
    z.scatter_add_(1, ids.clamp(min=0), (alpha * credits.log1p()).to(dtype) * (ids >= 0))
    return propose(z, need=need, exclude=exclude, dtype=dtype, **how), ids, credits
