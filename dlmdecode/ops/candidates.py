"""`candidates`: the tokens that a draft may take at each position (DiffuSpec, arXiv 2510.02358)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_lattice, real
from dlmdecode.ops.extension import register


def candidates(
    ids: Tensor, log_prob: Tensor, *, mass: float, eos_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """DiffuSpec's entropy-adaptive candidate sets; on the CPU.

    A position keeps its fewest best tokens whose probabilities add up to `mass`, less those of
    `eos_ids` (int64) at every position but the last. Tokens of log-probability -inf are never kept.

    ids int64 and log_prob float32 (K, M), best first. Returns both with what is kept moved to the
    front of each row, and how many that are, int64 (K,).
    Raises ValueError for arguments that do not fit.
    """
    check_lattice(ids, log_prob, eos_ids)
    mass = real("mass", mass)
    require(0 < mass <= 1, "mass", mass, "give a probability above 0")
    return run(ids.contiguous(), log_prob.float().contiguous(), mass, eos_ids.contiguous())


def reference(
    ids: Tensor, log_prob: Tensor, mass: float, eos_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    probability = log_prob.double().exp()
    before = probability.cumsum(1).roll(1, 1)
    before[:, :1] = 0
    kept = (before < mass) & (log_prob > -torch.inf)
    kept[:-1] &= ~torch.isin(ids[:-1], eos_ids)
    order = kept.int().argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), log_prob.gather(1, order), kept.sum(1)


def fake(ids, log_prob, mass, eos_ids):
    return torch.empty_like(ids), torch.empty_like(log_prob), ids.new_empty(len(ids))


run = register("candidates", reference, fake)
