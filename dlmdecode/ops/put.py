"""`put`: new proposals among those of a canvas."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from dlmdecode.ops.arguments import check_place
from dlmdecode.ops.extension import register

DTYPES = (torch.int64, torch.float64, torch.float32, torch.float32)


def reference(
    token: Tensor,
    prob: Tensor,
    margin: Tensor,
    entropy: Tensor,
    at: Tensor,
    where: Tensor,
    new_token: Tensor,
    new_prob: Tensor,
    new_margin: Tensor,
    new_entropy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    at = at.masked_fill(~where, token.shape[1])  # a column that is cut off

    def merged(old: Tensor, new: Tensor) -> Tensor:
        return pad(old, (0, 1)).scatter(1, at, new.view(at.shape))[:, :-1].contiguous()

    numbers = ((prob, new_prob), (margin, new_margin), (entropy, new_entropy))
    first, second, third = (merged(old, new) for old, new in numbers)
    return merged(token, new_token), first, second, third


def put(
    kept: tuple[Tensor, Tensor, Tensor, Tensor],
    at: Tensor,
    where: Tensor,
    new: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Proposals with those of some positions in place of the kept ones, as new tensors.

    kept: token int64, probability float64, margin and entropy float32, each (N, L).
    at: int64 (N, W), positions, each at most once in a row where `where` (N, W) bool is true.
    new: the same four for these, each (N · W,).
    """
    check_place("at", at, torch.int64, (len(kept[0]), *at.shape[1:]), kept[0])
    check_place("where", where, torch.bool, tuple(at.shape), at)
    for name, values, shape in (("kept", kept, tuple(kept[0].shape)), ("new", new, (at.numel(),))):
        for value, dtype in zip(values, DTYPES, strict=True):
            check_place(name, value, dtype, shape, at)
    old = [value.contiguous() for value in kept]
    return run(*old, at.contiguous(), where.contiguous(), *(value.contiguous() for value in new))


def fake(token, prob, margin, entropy, *rest):
    return tuple(torch.empty_like(value) for value in (token, prob, margin, entropy))


run = register("put", reference, fake)
