"""The lattice of a draft: which tokens a path may take at each position, and where paths end.

Shapes: **K** draft positions, **M** candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class TopM(NamedTuple):
    """The M best tokens of each draft position, best first; on the CPU when searched."""

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


def draft_end(top: TopM, eos_ids: tuple[int, ...]) -> int:
    """Positions before the first whose best token is EOS; K if there is none."""
    best = top.ids[:, 0].tolist()
    return next((i for i, token in enumerate(best) if token in eos_ids), len(best))


def candidates(top: TopM, mass: float, eos_ids: tuple[int, ...]) -> Lattice:
    """Entropy-adaptive candidate sets (DiffuSpec, arXiv 2510.02358).

    Position i gets its fewest best tokens whose probabilities add up to `mass`, or all M. The
    lattice ends at the first position whose best token is EOS. A path's score falls with every
    token, so one that could end earlier would win for being short: before the last position EOS is
    no candidate, and all paths are compared at the same length.
    """
    end = min(draft_end(top, eos_ids) + 1, len(top.ids))
    ids, log_prob = top.ids[:end].numpy(), top.log_prob[:end].numpy()
    probability = np.exp(log_prob.astype(np.float64))
    kept = probability.cumsum(1) - probability < mass
    kept[:, 0] = True
    kept &= log_prob > -np.inf
    for eos in eos_ids:
        kept[: end - 1] &= ids[: end - 1] != eos
    order = np.argsort(~kept, axis=1, kind="stable")
    ids, log_prob = (np.take_along_axis(array, order, 1) for array in (ids, log_prob))
    return Lattice(*map(torch.from_numpy, (ids, log_prob, kept.sum(1))))
