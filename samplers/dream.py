"""Dream's own decoding (arXiv 2508.15487): a time grid says how many masks to fill at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Between, Count, NonNegative, OneOf, PositiveProbability, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.noise import gumbel, uniform
from dlmdecode.decoding.parts import Part, Processor, Score, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import blocks_of
from dlmdecode.parts.processors import Temperature, TopKFilter, TopPFilter
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.parts.select import TopK
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.dream_grid import GridQuota

ALGORITHMS: dict[str, tuple[Score, ...]] = {
    "maskgit_plus": (),
    "topk_margin": (Margin(),),
    "entropy": (NegativeEntropy(),),
    "origin": (),
}


@dataclass(frozen=True)
class RandomShare(Selection):
    """Each position on its own with the probability of this step of the grid ("origin")."""

    draws = True
    steps: int
    eps: float = 1e-3

    def refuses(self, other: Part) -> str | None:
        ranks = isinstance(other, Score)
        return "positions are drawn, so that no confidence ranks them" if ranks else None

    def __call__(self, canvas: Canvas) -> Tensor:
        device = canvas.lo.device
        time = torch.linspace(1, self.eps, self.steps + 1, dtype=torch.float32, device=device)
        step = canvas.block_step.clamp(max=self.steps - 1)
        share = torch.where(step == self.steps - 1, 1.0, 1 - time[step + 1] / time[step])
        drawn = uniform(canvas.stream[:, None], canvas.position, canvas.step[:, None])
        return drawn < share[:, None]


@dataclass(frozen=True)
class Jitter(Score):
    """Draw positions with probability softmax(score / temperature) instead of taking the best."""

    signed = True
    draws = True
    temperature: float

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        noise = gumbel(canvas.stream[:, None], canvas.position, canvas.step[:, None])
        return confidence / self.temperature + noise


@register_sampler("dream", paper="arXiv 2508.15487", recorded=("dream-vanilla",))
def dream(
    steps: Count | None = None,
    alg: Annotated[str, OneOf(ALGORITHMS)] = "entropy",
    eps: Annotated[float, Between(0, 1, above=True)] = 1e-3,
    alg_temp: NonNegative | None = None,
    top_p: PositiveProbability | None = None,
    top_k: Count | None = None,
    max_new_tokens: Count = 256,
    block_length: Count | None = None,
    temperature: NonNegative = 0.0,
) -> Sampler:
    """Fill the whole canvas (or blocks, if `block_length` is given) along Dream's time grid."""
    drawn = alg == "origin" and bool(alg_temp)
    require(not drawn, "alg_temp", alg_temp, "alg='origin' ranks no positions: leave it out")
    width = max_new_tokens if block_length is None else block_length
    num_blocks = -(-max_new_tokens // width)
    steps = width * num_blocks if steps is None else steps
    fix = f"give a multiple of the number of blocks, {num_blocks}"
    require(steps % num_blocks == 0, "steps", steps, fix)
    per_block = steps // num_blocks
    filters: list[Processor] = [Temperature(temperature)] if temperature else []
    filters += [TopPFilter(top_p)] if top_p is not None else []
    filters += [TopKFilter(top_k)] if top_k is not None else []
    return Sampler(
        select=RandomShare(per_block, eps) if alg == "origin" else TopK(GridQuota(per_block, eps)),
        blocks=blocks_of(block_length),
        processors=tuple(filters),
        scores=ALGORITHMS[alg] + ((Jitter(alg_temp),) if alg_temp else ()),
        temperature=1.0 if temperature else 0.0,
    )
