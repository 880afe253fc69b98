"""`topm`: the best tokens of each row of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_logits, dense_rows, integer
from dlmdecode.ops.extension import register
from dlmdecode.ops.proposed import BAD, UNNEEDED, check_at_once


def topm(logits: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m best tokens of each row and their log-probabilities, best first.

    logits: (N, V) as for `propose`; 1 <= m <= 32. Returns ids int64 (N, m), the lowest first among
    equals, and log-probabilities float32 (N, m); id -1 and -inf where a row has fewer than m tokens
    above -inf. Errors as for `propose`.
    """
    check_logits(logits)
    m = integer("m", m)
    require(1 <= m <= 32, "m", m, "give a number from 1 to 32")
    ids, log_prob = run(dense_rows(logits), m)
    check_at_once(ids[:, 0])
    return ids, log_prob


def reference(logits: Tensor, m: int) -> tuple[Tensor, Tensor]:
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


def fake(logits, m):
    shape = (logits.shape[0], m)
    ids = logits.new_empty(shape, dtype=torch.int64)
    return ids, torch.empty_like(ids, dtype=torch.float32)


run = register("topm", reference, fake)
