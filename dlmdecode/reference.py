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
