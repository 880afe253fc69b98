"""How many tokens the next draft has: a number, or what drafts so far say."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlmdecode.checks import Count, Natural, PositiveProbability, conform, require
from dlmdecode.speculation.tree import Draft


class DraftLength:
    """The rule of a text's draft lengths.

    Attributes:
        length: tokens that the next draft is asked for, at most `longest`.
        cuts: it looks at the drafter's probabilities of a draft's tokens.
        by_entropy: it has a rule of its own for `worth`.
    """

    length: int
    longest: int
    cuts = False
    by_entropy = False

    def start(self) -> DraftLength:
        """The same rule without memory, for another text."""
        return self

    def cut(self, draft: Draft) -> Draft:
        """What of a draft is verified."""
        return draft

    def worth(self, before: int, entropy: float) -> bool:
        """Whether a token is drafted; see `Drafter.end_by`."""
        del before, entropy
        return True

    def measure(self, nodes: int, seconds: float) -> None:
        """Tell what a step with a draft of so many nodes took, but the first of a text."""
        del nodes, seconds

    def update(self, generated: int, accepted: int) -> None:
        """Tell how many tokens the draft had before its first EOS, and how many were accepted."""
        del generated, accepted


@dataclass
class AdaptiveLength(DraftLength):
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
        return AdaptiveLength(self.k_min, self.k_max, self.delta, self.rho)

    def update(self, generated: int, accepted: int) -> None:
        self.generated = (1 - self.rho) * self.generated + self.rho * generated
        self.accepted = (1 - self.rho) * self.accepted + self.rho * accepted
        length = int(self.generated) + self.delta * (self.accepted >= self.generated)
        self.length = min(max(length, self.k_min), self.k_max)


@dataclass
class FixedLength(DraftLength):
    """Every draft has `length` tokens."""

    length: int

    def __post_init__(self) -> None:
        self.longest = self.length = conform("draft_length", self.length, Natural)
