"""The lattice of a draft: which tokens a path may take at each position, and where paths end.

Shapes: **K** draft positions, **M** candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class TopM(NamedTuple):
    """The M best tokens of each draft position, best first."""

    ids: Tensor  # (K, M) int64
    log_prob: Tensor  # (K, M) float32


@dataclass(frozen=True)
class Lattice:
    """Candidates of each position.

    Attributes:
        ids: (K, M) int64; entries from `count` on are without meaning.
        log_prob: (K, M) float32, the drafter's, over the whole vocabulary.
        count: (K,) int64, at least 1.
    """

    ids: Tensor
    log_prob: Tensor
    count: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def is_eos(ids: Tensor, eos_ids: tuple[int, ...]) -> Tensor:
    return torch.isin(ids, torch.tensor(eos_ids, dtype=ids.dtype, device=ids.device))


def draft_end(top: TopM, eos_ids: tuple[int, ...]) -> int:
    """Positions before the first whose best token is EOS; K if there is none."""
    where = is_eos(top.ids[:, 0], eos_ids).nonzero()
    return int(where[0]) if len(where) else len(top.ids)


def candidates(top: TopM, mass: float, eos_ids: tuple[int, ...]) -> Lattice:
    """Entropy-adaptive candidate sets (DiffuSpec, arXiv 2510.02358).

    Position i gets its fewest best tokens whose probabilities add up to `mass`, or all M. The
    lattice ends at the first position whose best token is EOS. A path's score falls with every
    token, so one that could end earlier would win for being short: before the last position EOS is
    no candidate, and all paths are compared at the same length.
    """
    end = min(draft_end(top, eos_ids) + 1, len(top.ids))
    ids, log_prob = top.ids[:end], top.log_prob[:end]
    probability = log_prob.double().exp()
    kept = probability.cumsum(1) - probability < mass
    kept[:, 0] = True
    kept &= log_prob > -torch.inf
    kept[: end - 1] &= ~is_eos(ids[: end - 1], eos_ids)
    order = (~kept).long().argsort(dim=1, stable=True)
    return Lattice(ids.gather(1, order), log_prob.gather(1, order), kept.sum(1))
