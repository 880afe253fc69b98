"""`choose`: what a step commits of what a rule selects."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_place, check_tensor
from dlmdecode.ops.extension import register


def choose(where: Tensor, open: Tensor, confidence: Tensor) -> Tensor:
    """Open positions that are selected, and the most confident open one in rows without any.

    where, open: bool (N, L). confidence: floating-point (N, L); NaN is the highest, as in `argmax`,
    and of equals the lowest position is taken. Returns bool (N, L).
    """
    check_tensor("open", open)
    require(open.dim() == 2 and open.dtype == torch.bool, "open", open, "give bool (rows, length)")
    shape = tuple(open.shape)
    check_place("where", where, torch.bool, shape, open)
    check_place("confidence", confidence, None, shape, open)
    if confidence.dtype != torch.float64:
        confidence = confidence.double()
    return run(where.contiguous(), open.contiguous(), confidence.contiguous())


def reference(where: Tensor, open: Tensor, confidence: Tensor) -> Tensor:
    where = where & open
    best = confidence.masked_fill(~open, -torch.inf).argmax(1, keepdim=True)
    first = open.byte().argmax(1, keepdim=True)  # where none is above -inf
    best = torch.where(open.gather(1, best), best, first)
    stuck = ~where.any(1, keepdim=True)
    return where.scatter(1, best, where.gather(1, best) | stuck) & open


def fake(where, open, confidence):
    return torch.empty_like(where)


run = register("choose", reference, fake)
