"""How many tokens the next draft has: DiffuSpec's adaptive rule, or a fixed number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlmdecode.checks import require


@dataclass
class AdaptiveLength:
    """Adaptive draft length (DiffuSpec, arXiv 2510.02358).

    Keeps moving averages of the tokens a draft had before its first EOS and of those accepted; the
    next draft is as long as the former, and `delta` longer where acceptance keeps up with it.

    Attributes:
        k_min, k_max: bounds of the length; the first draft has k_max tokens.
        delta: growth of the length where the average acceptance reaches the average draft.
        rho: weight of the newest step in both averages, which begin at 0.
    """

    k_min: int = 20
    k_max: int = 30
    delta: int = 10
    rho: float = 0.5
    generated: float = field(default=0.0, init=False)
    accepted: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        require(0 <= self.k_min <= self.k_max, "k_min", self.k_min, "give 0 <= k_min <= k_max")
        require(self.k_max >= 1, "k_max", self.k_max, "give at least 1")
        require(self.delta >= 0, "delta", self.delta, "give 0 or more")
        require(0 < self.rho <= 1, "rho", self.rho, "give a weight in (0, 1]")
        self.length = self.k_max

    def start(self) -> AdaptiveLength:
        """The same rule without memory, for another text."""
        return AdaptiveLength(self.k_min, self.k_max, self.delta, self.rho)

    def update(self, generated: int, accepted: int) -> None:
        """Tell how many tokens the draft had before its first EOS, and how many were accepted."""
        self.generated = (1 - self.rho) * self.generated + self.rho * generated
        self.accepted = (1 - self.rho) * self.accepted + self.rho * accepted
        length = int(self.generated) + self.delta * (self.accepted >= self.generated)
        self.length = min(max(length, self.k_min), self.k_max)


@dataclass
class FixedLength:
    """Every draft has `length` tokens."""

    length: int

    def __post_init__(self) -> None:
        whole = isinstance(self.length, int) and not isinstance(self.length, bool)
        fits = whole and self.length >= 0
        require(fits, "draft_length", self.length, "give 'adaptive' or a whole number, 0 or more")

    def start(self) -> FixedLength:
        return self

    def update(self, generated: int, accepted: int) -> None:
        del generated, accepted


def resolve_length(draft_length: Any) -> AdaptiveLength | FixedLength:
    """The rule that `draft_length` names."""
    if draft_length == "adaptive":
        return AdaptiveLength()
    if isinstance(draft_length, (AdaptiveLength, FixedLength)):
        return draft_length
    return FixedLength(draft_length)
