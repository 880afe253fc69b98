"""How many tokens the next draft has: a number, or what drafts so far or its own tokens say."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import Annotated, Any

from dlmdecode.checks import (
    Count,
    Natural,
    OneOf,
    PositiveProbability,
    Probability,
    conform,
    require,
)
from dlmdecode.speculation.tree import Draft


class DraftLength:
    """The rule of a text's draft lengths.

    Attributes:
        length: tokens that the next draft is asked for, at most `longest`.
        cuts: it looks at the drafter's probabilities of a draft's tokens.
    """

    length: int
    longest: int
    cuts = False

    def start(self) -> DraftLength:
        """The same rule without memory, for another text."""
        return self

    def cut(self, draft: Draft) -> Draft:
        """What of a draft is verified."""
        return draft

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


@dataclass
class ConfidentLength(DraftLength):
    """A path of a draft ends before the drafter finds it unlikely (as in SpecDec++, arXiv
    2405.19715, whose trained head says how likely; here it is the drafter).

    Attributes:
        most: tokens that every draft is asked for.
        bound: the product of a path's probabilities below which it ends.
        least: its first tokens, which always stay.
        moves: after a draft the bound rises by 0.001 where, on a moving average, less than nine
            tenths of the drafted tokens stand, else it falls (Draft & Verify, 2309.08168).
    """

    most: int = 30
    bound: float = 0.05
    least: int = 4
    moves: bool = False
    matched: float = field(default=0.0, init=False)
    cuts = True

    def __post_init__(self) -> None:
        self.most = self.length = self.longest = conform("most", self.most, Count)
        self.bound = conform("bound", self.bound, Probability)
        self.least = conform("least", self.least, Count)
        require(self.least < self.most, "least", self.least, f"give less than most={self.most}")
        self.drafted = 0

    def start(self) -> ConfidentLength:
        return ConfidentLength(self.most, self.bound, self.least, self.moves)

    def cut(self, draft: Draft) -> Draft:
        likely = path_probabilities(draft)
        pairs = enumerate(zip(draft.depth, likely, strict=True))
        kept = [node for node, (at, one) in pairs if at < self.least or one >= self.bound]
        self.drafted = max((draft.depth[node] + 1 for node in kept), default=0)
        return draft.only(kept)

    def update(self, generated: int, accepted: int) -> None:
        if self.moves and self.drafted:
            self.matched += 0.5 * (accepted / self.drafted - self.matched)
            step = 0.001 if self.matched < 0.9 else -0.001
            self.bound = min(max(self.bound + step, 0.0), 1.0)


def path_probabilities(draft: Draft) -> list[float]:
    """The probability of each node's path, of a draft that has its tokens' probabilities."""
    assert draft.log_prob is not None
    likely: list[float] = []
    for parent, own in zip(draft.parent, draft.log_prob, strict=True):
        likely.append((likely[parent] if parent >= 0 else 1.0) * exp(min(own, 0.0)))
    return likely


def resolve_length(draft_length: Any) -> DraftLength:
    """The rule that `draft_length` names."""
    if isinstance(draft_length, DraftLength):
        return draft_length
    named = {"adaptive": AdaptiveLength, "confidence": ConfidentLength}
    rule = conform("draft_length", draft_length, Natural | Annotated[str, OneOf(tuple(named))])
    return named[rule]() if isinstance(rule, str) else FixedLength(rule)
