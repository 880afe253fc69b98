"""The lattice of a draft: which tokens a path may take at each position, and where paths end.

Shapes: **K** draft positions, **M** candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlmdecode import ops

FUSED = 32  # candidates that `ops.topm` finds in one read


class TopM(NamedTuple):
    """The M best tokens of each draft position, best first; on the CPU when searched."""

    ids: Tensor  # (K, M) int64
    log_prob: Tensor  # (K, M) float32


def top_m(logits: Tensor, num: int) -> TopM:
    """The `num` best tokens of logits (K, V) with their log probabilities, best first."""
    if num <= FUSED:
        return TopM(*ops.topm(logits, num))
    best, ids = logits.topk(min(num, logits.shape[-1]), -1)
    return TopM(ids, (best.float() - logits.float().logsumexp(-1, keepdim=True)))


def entropy(logits: Tensor) -> Tensor:
    """The entropy (K,) in nats of the distributions of logits (K, V)."""
    return torch.special.entr(logits.softmax(-1)).sum(-1)


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
    ids, log_prob = top.ids[:end], top.log_prob[:end]
    return Lattice(*ops.candidates(ids, log_prob, mass=mass, eos_ids=as_tensor(eos_ids)))


@cache
def as_tensor(eos_ids: tuple[int, ...]) -> Tensor:
    return torch.tensor(eos_ids, dtype=torch.int64, device="cpu")
