"""Diffusion drafts of several forwards: as many as their tokens are worth."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from dlmdecode.checks import Count, NonNegative, PositiveProbability, Probability, conform
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser
from dlmdecode.speculation.diffuspec.lattice import TopM, draft_end
from dlmdecode.speculation.drafters.base import Observation
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter, Looking
from dlmdecode.speculation.drafters.registry import register_drafter


class ThresholdDrafter(DiffusionDrafter):
    """Commits all tokens from a threshold up, and the most confident, until none is open before the
    first EOS, behind which further forwards do not look (Fast-dLLM's rule, arXiv 2505.22618, on the
    draft).

    Args:
        model: see `DiffusionDrafter`.
        steps: the most forwards of a draft.
        threshold: probability from which a token is sure.
        dear: a draft is one forward where that costs more than this many verifications, by the
            seconds that both took; so the number of forwards may differ from run to run. At 2 a
            second forward makes a step 5/3 as long, and more than pays where a draft of several is
            accepted twice as far.
        num_candidates, prefix_cache: see `DiffusionDrafter`.
    """

    draft_length = 64

    def __init__(
        self,
        model: Denoiser,
        steps: Count = 3,
        threshold: PositiveProbability = 0.9,
        dear: NonNegative = 2.0,
        num_candidates: Count = 15,
        prefix_cache: bool = True,
    ):
        super().__init__(model, steps, num_candidates, prefix_cache)
        self.most = self.steps
        self.level = log(conform("threshold", threshold, PositiveProbability))
        self.dear: float = conform("dear", dear, NonNegative)
        self.cost = float("inf")  # seconds of a forward, the least seen

    def look(self, prefix: list[int], canvas: Tensor) -> Looking:
        top = yield from super().look(prefix, canvas)
        self.cost = min(self.cost, self.seconds)
        return top

    def check(self, longest: int) -> None:
        del longest  # `steps` is the most there may be

    def commits(self, confidence: Tensor, left: int) -> Tensor:
        del left
        sure = confidence >= self.level
        sure[confidence.argmax()] = True
        return sure.nonzero()[:, 0]

    def ahead(self, top: TopM, open_: Tensor) -> int:
        end = draft_end(top, self.eos_ids)
        return end + 2 if open_[:end].any() else 0  # EOS, and that the text has one

    def observe(self, seen: Observation) -> None:
        cheap = self.cost <= self.dear * seen.seconds
        self.steps = self.most if cheap else 1


class FailFast(DiffusionDrafter):
    """Drafts block after block, one forward for each, which sees those before it as text, and ends
    behind the first block that is unsure of a token (FailFast, arXiv 2512.20573).

    Args:
        model: see `DiffusionDrafter`.
        block: tokens of a block.
        low: probability below which a token is unsure; the last block is drafted, too.
        num_candidates, prefix_cache: see `DiffusionDrafter`.
    """

    draft_length = 60

    def __init__(
        self,
        model: Denoiser,
        block: Count = 10,
        low: Probability = 0.45,
        num_candidates: Count = 15,
        prefix_cache: bool = True,
    ):
        super().__init__(model, 1, num_candidates, prefix_cache)
        self.block: int = conform("block", block, Count)
        self.low: float = conform("low", low, Probability)

    def lattice(self, prefix: list[int], length: int) -> Looking:
        tops: list[TopM] = []
        entropies: list[Tensor] = []
        text, left = list(prefix), length
        while left > 0:
            top = yield from super().lattice(text, min(self.block, left))
            tops.append(top)
            entropies.append(self.entropy)
            end, size = draft_end(top, self.eos_ids), len(top.ids)
            sure = bool((top.log_prob[:end, 0].exp() >= self.low).all())
            if end < size or not sure:
                break
            text += top.ids[:, 0].tolist()
            left -= size
        self.entropy = torch.cat(entropies)
        return TopM(torch.cat([top.ids for top in tops]), torch.cat([top.log_prob for top in tops]))


@register_drafter("threshold", paper="arXiv 2505.22618")
def threshold(
    model: str,
    steps: Count = 3,
    threshold: PositiveProbability = 0.9,
    dear: NonNegative = 2.0,
) -> ThresholdDrafter:
    """A diffusion model that commits what it is sure of, in a few forwards for each draft."""
    return ThresholdDrafter(load(model), steps, threshold, dear)


@register_drafter("failfast", paper="arXiv 2512.20573")
def failfast(model: str, block: Count = 10, low: Probability = 0.45) -> FailFast:
    """A diffusion model that drafts on, block after block, while it is sure."""
    return FailFast(load(model), block, low)
