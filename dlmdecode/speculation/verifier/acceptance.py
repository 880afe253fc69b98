"""Lossy verification, which has to be asked for: drafted tokens may stand that the verifier did not
choose. The text is then no longer its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Any, get_type_hints

import torch
from torch import Tensor

from dlmdecode.checks import Positive, PositiveProbability, conform, require
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.verification import Choices


@dataclass(frozen=True)
class TypicalAcceptance:
    """A drafted token stands where its probability is above min(epsilon, alpha * exp(-H)), H the
    entropy of its distribution in nats (Medusa, arXiv 2401.10774).

    The distribution is the verifier's after its logits processors, greedy at temperature 1.

    Attributes:
        epsilon: probability above which any token stands.
        alpha: weight of exp(-H), which lowers the bound where many tokens are likely.
    """

    epsilon: PositiveProbability = 0.09
    alpha: Positive = 0.3

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, conform(name, vars(self)[name], hint))

    def likeliest(self, scores: Tensor, tokens: list[int]) -> int | None:
        """The likeliest of `tokens`, by scores (V,), None where it does not stand."""
        p = scores.softmax(-1)
        own = p[tokens].tolist()
        bound = min(self.epsilon, self.alpha * exp(-float(torch.special.entr(p).sum())))
        return tokens[own.index(max(own))] if max(own) > bound else None


class TypicalChoices:
    """The verifier's choices, or children of a draft's nodes that stand in their place."""

    def __init__(self, own: Choices, draft: Draft, rule: TypicalAcceptance):
        self.own, self.rule = own, rule
        self.below: dict[int, list[int]] = {}
        for node, token in draft.children:
            self.below.setdefault(node, []).append(token)

    def __call__(self, node: int, written: list[int]) -> int:
        """The token after `node`; see `Choices`. The verifier's own goes first."""
        token, drafted = self.own(node, written), self.below.get(node)
        if drafted is None or token in drafted:
            return token
        typical = self.rule.likeliest(self.own.last(node), drafted)
        return token if typical is None else typical


def resolve_acceptance(acceptance: Any, longest: int) -> TypicalAcceptance | None:
    """The rule that `acceptance` names or is, None for "exact"; drafts have up to `longest` tokens.

    Raises:
        ValueError: no rule, or one that has no drafts to accept.
    """
    if acceptance == "exact":
        return None
    rule = TypicalAcceptance() if acceptance == "typical" else acceptance
    fix = "give 'exact', 'typical' or a TypicalAcceptance"
    require(isinstance(rule, TypicalAcceptance), "acceptance", acceptance, fix)
    require(longest > 0, "acceptance", acceptance, "draft_length=0 drafts nothing; leave it out")
    return rule
