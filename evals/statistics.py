"""What may be concluded from right and wrong answers, and from speed: intervals, McNemar, AUP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

ALPHA = 3.0  # how fast AUP's weight falls with lost accuracy
OFFSET = 5.0  # percentage points below the first point; what is lower does not count


def interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval of a share, as two shares."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            f"correct={correct}, total={total}: give 0 <= correct <= total, total >= 1"
        )
    low, high = binomtest(correct, total).proportion_ci(level, method="wilson")
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Two samplers on the same problems; `gained` and `lost`: those that only one got right."""

    gained: int
    lost: int
    total: int

    @property
    def difference(self) -> float:
        """Accuracy gained, in percentage points."""
        return 100 * (self.gained - self.lost) / self.total

    @property
    def p(self) -> float:
        """Exact two-sided McNemar test: are gains and losses equally likely?"""
        discordant = self.gained + self.lost
        return float(binomtest(self.gained, discordant, 0.5).pvalue) if discordant else 1.0


def paired(baseline: Iterable[bool], other: Iterable[bool]) -> Paired:
    """Compare verdicts on the same problems in the same order."""
    pairs = list(zip(baseline, other, strict=True))
    if not pairs:
        raise ValueError("no problem that both samplers answered: nothing to compare")
    return Paired(
        sum(o and not b for b, o in pairs), sum(b and not o for b, o in pairs), len(pairs)
    )


@dataclass(frozen=True)
class Area:
    """AUP with all that it depends on; `outside` are the points below the accuracy band."""

    value: float
    points: tuple[tuple[float, float], ...]
    outside: tuple[tuple[float, float], ...]
    best: float
    alpha: float
    offset: float


def aup(
    points: Sequence[tuple[float, float]],
    best: float,
    alpha: float = ALPHA,
    offset: float = OFFSET,
) -> Area:
    """Accuracy under parallelism as the d3LLM project defines it.

    Args:
        points: (tokens per forward, accuracy in percent). One point alone is never weighted, so
            put the one-token-per-forward run among them.
        best: the best accuracy of any method on the task, in percent.
        alpha, offset: the published definition has 3 and 5.
    """
    if not points or best <= 0:
        raise ValueError(f"points={points!r}, best={best!r}: give at least one point and best > 0")
    ordered = sorted(points)
    floor = ordered[0][1] - offset
    kept = [point for point in ordered if point[1] >= floor]

    def weighted(accuracy: float) -> float:
        return accuracy * min(math.exp(-alpha * (1 - accuracy / best)), 1.0)

    value = kept[0][0] * kept[0][1]
    for (left, low), (right, high) in zip(kept, kept[1:], strict=False):
        value += (right - left) * (weighted(low) + weighted(high)) / 2
    outside = tuple(point for point in ordered if point[1] < floor)
    return Area(value, tuple(kept), outside, best, alpha, offset)
