"""Factor decoding (Fast-dLLM, arXiv 2505.22618): the bar rises with the number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.canvas import Canvas
from dlmdecode.checks import require_finite
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Sampler
from dlmdecode.select import prefix, surest_first


@dataclass(frozen=True)
class Factor:
    """The longest prefix of the surest positions with (n + 1)(1 − cₙ) < `factor`."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        require_finite("factor", self.factor)

    def __call__(self, canvas: Canvas) -> Tensor:
        ranked, order = surest_first(canvas)
        n = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
        passes = (n + 1) * (1 - ranked) < self.factor
        return prefix(order, passes.long().cumprod(1).sum(1))


@register_sampler("factor", paper="arXiv 2505.22618")
def factor(factor: float = 1.0) -> Sampler:
    """Commit the n surest positions while (n + 1)(1 − the n-th's confidence) is below `factor`."""
    return Sampler(select=Factor(factor))
