"""`put`: new proposals among those of a canvas."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad


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
    pairs = ((token, new_token), (prob, new_prob), (margin, new_margin), (entropy, new_entropy))
    first, *others = (
        pad(old, (0, 1)).scatter(1, at, new.view_as(at))[:, :-1].contiguous() for old, new in pairs
    )
    return first, others[0], others[1], others[2]


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
    return reference(*kept, at, where, *new)
