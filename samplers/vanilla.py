"""LLaDA's own decoding (arXiv 2502.09992): a fixed number of tokens per step, by confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.noise import uniform
from dlmdecode.decoding.parts import Processor, Score
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import EvenQuota, TopK
from dlmdecode.registry import register_sampler

REMASKING = ("low_confidence", "random")


@dataclass(frozen=True)
class RandomOrder(Score):
    """Confidences that are random instead: a fresh order at every step, fixed by the seed."""

    replaces = True
    draws = True

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return uniform(canvas.stream[:, None], canvas.position, canvas.step[:, None])


@dataclass(frozen=True)
class WithoutEos(Processor):
    """The first EOS id, which also pads, is never proposed."""

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        return logits.index_fill(
            -1, torch.tensor(rows.eos_ids[:1], device=logits.device), -torch.inf
        )


@dataclass(frozen=True)
class EndLast(Score):
    """Positions that propose to end the text come after all others."""

    signed = True

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return torch.where(canvas.is_eos(canvas.proposal.token), confidence - 1, confidence)


@register_sampler("vanilla", paper="arXiv 2502.09992", recorded=("llada-vanilla",))
def vanilla(
    steps: Count | None = None,
    remasking: Annotated[str, OneOf(REMASKING)] = "low_confidence",
    logits_eos_inf: bool = False,
    confidence_eos_eot_inf: bool = False,
) -> Sampler:
    """Fill the canvas block by block in `steps` steps altogether (None: one token per step).

    `logits_eos_inf` never proposes the first EOS id; `confidence_eos_eot_inf` commits end tokens
    only where nothing else is left. Both are LLaDA's own switches for its instruct models.
    """
    scores: tuple[Score, ...] = (RandomOrder(),) if remasking == "random" else ()
    scores += (EndLast(),) if confidence_eos_eot_inf else ()
    processors = (WithoutEos(),) if logits_eos_inf else ()
    return Sampler(select=TopK(EvenQuota(steps)), processors=processors, scores=scores)
