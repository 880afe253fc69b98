"""How many tokens the next draft has: a number, or what drafts so far or its own tokens say."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import exp, sqrt
from typing import Annotated, Any

from dlmdecode.checks import (
    Count,
    Natural,
    OneOf,
    Positive,
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
class BoundedLength(DraftLength):
    """A draft ends before its tokens are too unlikely to be accepted, by what the drafter knows.

    Attributes:
        most: tokens that every draft is asked for.
        bound: the acceptance below which it ends; see the subclass.
        least: its first tokens, which always stay.
        moves: after a draft the bound rises by 0.001 where, on a moving average, less than nine
            tenths of the drafted tokens stand, else it falls (Draft & Verify, arXiv 2309.08168).
    """

    most: int = 30
    bound: float = 0.5
    least: int = 1
    moves: bool = False
    matched: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.most = self.length = self.longest = conform("most", self.most, Count)
        self.bound = conform("bound", self.bound, Probability)
        self.least = conform("least", self.least, Count)
        require(self.least < self.most, "least", self.least, f"give less than most={self.most}")

    def start(self) -> BoundedLength:
        return type(self)(**{one.name: vars(self)[one.name] for one in fields(self) if one.init})

    def move(self, drafted: int, accepted: int) -> None:
        """Let the bound follow what became of a draft."""
        if self.moves and drafted:
            self.matched += 0.5 * (accepted / drafted - self.matched)
            step = 0.001 if self.matched < 0.9 else -0.001
            self.bound = min(max(self.bound + step, 0.0), 1.0)


@dataclass
class ConfidentLength(BoundedLength):
    """A path of a draft ends before the drafter finds it unlikely (as in SpecDec++, arXiv
    2405.19715, whose trained head says how likely; here it is the drafter).

    Attributes:
        bound: the product of a path's probabilities below which it ends.
        most, least, moves: see `BoundedLength`.
    """

    bound: float = 0.05
    least: int = 4
    drafted: int = field(default=0, init=False)
    cuts = True

    def cut(self, draft: Draft) -> Draft:
        likely = path_probabilities(draft)
        pairs = enumerate(zip(draft.depth, likely, strict=True))
        kept = [node for node, (at, one) in pairs if at < self.least or one >= self.bound]
        self.drafted = max((draft.depth[node] + 1 for node in kept), default=0)
        return draft.only(kept)

    def update(self, generated: int, accepted: int) -> None:
        del generated
        self.move(self.drafted, accepted)


@dataclass
class EntropyLength(BoundedLength):
    """A draft ends before the first token whose distribution is too flat (AdaEDL, arXiv
    2410.18351): 1 - sqrt(gamma * entropy) is about the least that its acceptance can be.

    A drafter that runs its model for each token saves the forwards behind it.

    Attributes:
        bound: the acceptance below which a draft ends.
        gamma: weight of the entropy, which is in nats.
        most, least, moves: see `BoundedLength`.
    """

    bound: float = 0.4
    gamma: float = 0.2
    by_entropy = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gamma = conform("gamma", self.gamma, Positive)

    def worth(self, before: int, entropy: float) -> bool:
        return before < self.least or 1 - sqrt(self.gamma * max(entropy, 0.0)) >= self.bound

    def update(self, generated: int, accepted: int) -> None:
        self.move(generated, accepted)


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
    named = {"adaptive": AdaptiveLength, "confidence": ConfidentLength, "entropy": EntropyLength}
    rule = conform("draft_length", draft_length, Natural | Annotated[str, OneOf(tuple(named))])
    return named[rule]() if isinstance(rule, str) else FixedLength(rule)
