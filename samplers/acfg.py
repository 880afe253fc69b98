"""A-CFG (arXiv 2505.20199): guidance away from a text whose least certain tokens are masked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlmdecode.caches import Recompute, gather_states
from dlmdecode.checks import Positive, PositiveProbability
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.evaluation import require_no_cache, require_no_guidance
from dlmdecode.registry import register_sampler
from dlmdecode.settings import Settings


@dataclass(frozen=True)
class AdaptiveGuidance(Evaluation):
    """Logits `u + (1 + scale)(z − u)`, u from a second forward without uncertain tokens.

    Of the written tokens of the text the share `ratio`, at least one, is masked for u: those where
    the model's best token is least probable. Before anything is written there is no u.
    """

    scale: float = 1.0
    ratio: float = 0.3

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        require_no_cache(settings, "A-CFG reads the model's confidence in all that is written")
        require_no_guidance(settings, "A-CFG is guidance of its own, with an option `scale`")
        return WithoutUncertain(model, self)


class WithoutUncertain(Recompute):
    """No cache; rows with something written take part in two forwards a step."""

    def __init__(self, model: Denoiser, guidance: AdaptiveGuidance):
        super().__init__(model)
        self.guidance = guidance

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        every, text = super().__call__(rows, rows.text_span)
        logits = gather_states(every, text.column(wanted.at))
        uncertain = self.uncertain(rows, every, text)
        some = uncertain.any(1).nonzero()[:, 0]
        if not len(some):
            return logits, wanted
        blind = rows.take(some)
        blind = replace(blind, tokens=blind.tokens.masked_fill(uncertain[some], rows.mask_id))
        every, text = super().__call__(blind, blind.text_span)
        rows.nfe = rows.nfe.index_add(0, some, torch.ones_like(some))  # beside the one of the loop
        free = gather_states(every, text.column(wanted.at[some]))
        guided = free + (1 + self.guidance.scale) * (logits[some] - free)
        return logits.index_copy(0, some, guided), wanted

    def uncertain(self, rows: Canvas, logits: Tensor, text: Positions) -> Tensor:
        """The written positions that are masked, (N, L) bool, by logits (N, W, V) of the text."""
        prob = logits.float().softmax(-1).amax(-1).gather(1, text.column(rows.position))
        written = rows.text & ~rows.masked
        number = written.sum(1)
        count = (number * self.guidance.ratio).long().clamp(min=1).minimum(number)
        rank = prob.masked_fill(~written, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return rank < count[:, None]


@register_sampler("acfg", over="vanilla", paper="arXiv 2505.20199")
def acfg(scale: Positive = 1.0, ratio: PositiveProbability = 0.3) -> Sampler:
    """Guide away from what the model says once its least certain tokens are masked."""
    return Sampler(evaluate=AdaptiveGuidance(scale, ratio))
