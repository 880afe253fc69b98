"""Drafts that end by what the drafter knows of its tokens, and which rule an argument names."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import exp, sqrt
from typing import Annotated, Any

from dlmdecode.checks import Count, Natural, OneOf, Positive, Probability, conform, require
from dlmdecode.speculation.draft_length import AdaptiveLength, DraftLength, FixedLength
from dlmdecode.speculation.tree import Draft

TRIALS = 6  # steps before costs are known
RECENT = 0.98  # weight of a step beside the one after it


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


@dataclass
class CostLength(DraftLength):
    """Of a draft, a tree or a chain, the nodes that raise the expected tokens per second.

    Nodes are taken by the probabilities p of their paths, whose sum and 1 is what is expected, for
    as long as p is worth its share of time: a step takes a + b * nodes seconds, fitted to the steps
    of all texts so far, the later ones first. So the number of forwards may differ from run to run.

    Attributes:
        most: tokens that every draft is asked for.
    """

    most: int = 30
    sums: list[float] = field(default_factory=lambda: [0.0] * 5, init=False)
    steps: int = field(default=0, init=False)
    cuts = True

    def __post_init__(self) -> None:
        self.most = self.length = self.longest = conform("most", self.most, Count)

    def cut(self, draft: Draft) -> Draft:
        likely = path_probabilities(draft)
        order = sorted(range(len(draft)), key=lambda node: -likely[node])  # parents stay before
        if self.steps < TRIALS:  # several sizes, so that the slope is known
            return draft.only(sorted(order[: -(-len(order) >> self.steps % 3)]))
        seconds, share = self.fitted()
        expected, kept = 1.0, 0
        for node in order:
            if likely[node] * seconds < expected * share:
                break
            expected, seconds, kept = expected + likely[node], seconds + share, kept + 1
        return draft.only(sorted(order[:kept]))

    def measure(self, nodes: int, seconds: float) -> None:
        new = (1.0, nodes, seconds, nodes * nodes, nodes * seconds)
        self.sums = [RECENT * old + one for old, one in zip(self.sums, new, strict=True)]
        self.steps += 1

    def fitted(self) -> tuple[float, float]:
        """a and b: the seconds of a step without a draft, and those of a node."""
        count, x, y, xx, xy = self.sums
        spread = count * xx - x * x
        share = max((count * xy - x * y) / spread, 0.0) if spread > 0 else 0.0
        return max((y - share * x) / count, 0.0), share


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
    named = {
        "adaptive": AdaptiveLength,
        "confidence": ConfidentLength,
        "cost": CostLength,
        "entropy": EntropyLength,
    }
    rule = conform("draft_length", draft_length, Natural | Annotated[str, OneOf(tuple(named))])
    return named[rule]() if isinstance(rule, str) else FixedLength(rule)
