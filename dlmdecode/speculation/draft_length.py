"""How many tokens the next draft has: DiffuSpec's adaptive rule, or a fixed number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dlmdecode.checks import Count, Natural, OneOf, PositiveProbability, conform, require


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
        self.k_min = conform("k_min", self.k_min, Natural)
        self.k_max = conform("k_max", self.k_max, Count)
        self.delta = conform("delta", self.delta, Natural)
        self.rho = conform("rho", self.rho, PositiveProbability)
        require(self.k_min <= self.k_max, "k_min", self.k_min, f"give at most k_max={self.k_max}")
        self.length = self.longest = self.k_max

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
        self.longest = self.length = conform("draft_length", self.length, Natural)

    def start(self) -> FixedLength:
        return self

    def update(self, generated: int, accepted: int) -> None:
        del generated, accepted


def resolve_length(draft_length: Any) -> AdaptiveLength | FixedLength:
    """The rule that `draft_length` names."""
    if isinstance(draft_length, (AdaptiveLength, FixedLength)):
        return draft_length
    length = conform("draft_length", draft_length, Natural | Annotated[str, OneOf(("adaptive",))])
    return AdaptiveLength() if length == "adaptive" else FixedLength(length)
