"""Which path of the lattice to draft: DiffuSpec's causal-consistency search, or the best tokens.

    score(path) = sum over i of  lam * log p(y_i) + (1 - lam) * log p_ngram(y_i | y_<i)

`search` is the specification of `ops.path_search`, and takes its place where the extension was not
built or the proxy is no `NGram`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, get_type_hints, runtime_checkable

import numpy as np
import torch

from dlmdecode import ops
from dlmdecode.checks import Count, PositiveProbability, Probability, conform
from dlmdecode.speculation.diffuspec.lattice import Lattice, TopM, as_tensor, candidates, draft_end
from dlmdecode.speculation.diffuspec.ngram import BEGIN, NGram


class Scorer(Protocol):
    """A causal model of the path: what `NGram` is."""

    @property
    def order(self) -> int: ...

    def log_prob(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Natural log probability (C, M) of tokens (M,) after contexts (C, order - 1)."""
        ...


@runtime_checkable
class Proxy(Protocol):
    """Gives the scorer for a text. `NGram` gives itself, `OnlineNGram` counts the text first."""

    def at(self, prefix: list[int]) -> Scorer: ...


def search(
    lattice: Lattice,
    prefix: list[int],
    scorer: Scorer,
    beam: int,
    lam: float,
    eos_ids: tuple[int, ...],
) -> tuple[list[int], float]:
    """The best path of a beam search from left to right, and its score.

    A path that ends in EOS is finished and keeps competing with its score. Of equal scores the one
    found first wins: better beam first, then better candidate.
    """
    paths: list[tuple[float, list[int]]] = [(0.0, [])]
    rows = zip(lattice.ids.numpy(), lattice.log_prob.numpy(), lattice.count.tolist(), strict=True)
    for ids, log_prob, count in rows:
        token, own = ids[:count], lam * log_prob[:count].astype(np.float64)
        alive = [path for _, path in paths if not ended(path, eos_ids)]
        gain = np.broadcast_to(own, (len(alive), count))
        if lam < 1 and alive:
            context = np.array([last(prefix + path, scorer.order - 1) for path in alive], np.int64)
            gain = gain + (1 - lam) * scorer.log_prob(context, token)
        gains = iter(gain.tolist())
        found: list[tuple[float, list[int]]] = []
        for score, path in paths:
            if ended(path, eos_ids):
                found.append((score, path))
            else:
                pairs = zip(token.tolist(), next(gains), strict=True)
                found += [(score + more, [*path, one]) for one, more in pairs]
        paths = sorted(found, key=lambda pair: -pair[0])[:beam]
    score, path = paths[0]
    return path, score


def fused(
    lattice: Lattice,
    prefix: list[int],
    ngram: NGram,
    beam: int,
    lam: float,
    eos_ids: tuple[int, ...],
) -> tuple[list[int], float]:
    """`search` in C++, for an n-gram."""
    path, score = ops.path_search(
        lattice.ids,
        lattice.log_prob,
        lattice.count,
        **ngram.tables,
        floor=ngram.floor,
        prefix=torch.tensor(last(prefix, ngram.order - 1), dtype=torch.int64, device="cpu"),
        beam=beam,
        lam=lam,
        eos_ids=as_tensor(eos_ids),
    )
    return path.tolist(), score


def ended(path: list[int], eos_ids: tuple[int, ...]) -> bool:
    return bool(path) and path[-1] in eos_ids


def last(ids: list[int], length: int) -> list[int]:
    """The last `length` ids, with `BEGIN` before the first."""
    return [BEGIN] * (length - len(ids)) + ids[len(ids) - min(length, len(ids)) :]


@dataclass(frozen=True)
class PathSearch:
    """Causal-consistency path search (DiffuSpec, arXiv 2510.02358).

    Attributes:
        beam: paths kept at each position.
        lam: weight of the drafter; 1 - lam is the n-gram's.
        num_candidates: the most tokens a position offers.
        mass: a position offers its best tokens up to this probability.
    """

    beam: Count = 3
    lam: Probability = 0.5
    num_candidates: Count = 15
    mass: PositiveProbability = 0.8

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, conform(name, vars(self)[name], hint))

    @property
    def guided(self) -> bool:
        """Whether a proxy has a say."""
        return self.lam < 1

    def __call__(
        self, top: TopM, prefix: list[int], proxy: Proxy, eos_ids: tuple[int, ...]
    ) -> list[int]:
        """Token ids of the best path; it may end in an EOS."""
        most = self.num_candidates
        top = TopM(top.ids[:, :most].cpu(), top.log_prob[:, :most].cpu())
        lattice = candidates(top, self.mass, eos_ids)
        if max(lattice.count.tolist()) == 1:  # there is one path
            return lattice.ids[:, 0].tolist()
        scorer = proxy.at(prefix)
        if isinstance(scorer, NGram) and ops.is_available():
            return fused(lattice, prefix, scorer, self.beam, self.lam, eos_ids)[0]
        return search(lattice, prefix, scorer, self.beam, self.lam, eos_ids)[0]


@dataclass(frozen=True)
class BestTokens:
    """No search: the drafter's best token at each position, up to the first EOS."""

    num_candidates: int = 1
    guided = False

    def __call__(
        self, top: TopM, prefix: list[int], proxy: Proxy, eos_ids: tuple[int, ...]
    ) -> list[int]:
        del prefix, proxy
        return top.ids[: draft_end(top, eos_ids) + 1, 0].tolist()
