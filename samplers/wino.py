"""WINO (wide in, narrow out; ICLR 2026): accept boldly, and take back what does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches import gather_states
from dlmdecode.checks import Probability, number, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Work
from dlmdecode.decoding.parts import Evaluation, Revision, Selection
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler
from dlmdecode.settings import Settings

SHADOW = "shadow"  # memory: probability of each standing token as its shadow sees it, (B, L)
FIRST_LIMIT = 30


class ShadowBlock:
    """A forward that appends a copy of the block as masks, to second-guess what stands in it.

    Shadow position i sees everything but position i itself, so its distribution judges the token
    that stands there. Ordinary positions do not see the shadow.
    """

    def __init__(self, model: Any):
        self.model, self.work = model, Work()
        self.beside: tuple[Any, ...] = (None, None)  # a block and the texts' ends, and its mask

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        length = rows.tokens.shape[1]
        block: Positions = rows.block_span
        if all(row.full for row in rows.seen):
            block = wanted
        elif any(row.full for row in rows.seen):
            full = rows.block_full
            lo, hi = torch.where(full, wanted.lo, rows.lo), torch.where(full, wanted.hi, rows.hi)
            block = Span(lo, hi)
        tokens = F.pad(rows.tokens, (0, block.width), value=rows.mask_id)
        self.work.add(tokens)
        if self.beside[0] is not block or self.beside[1] is not rows.stop:  # else as a step ago
            position = torch.cat([rows.position, block.at], 1)
            attend = self.model.attention(position, position, self.shown(rows, block))
            self.beside = block, rows.stop, position, attend
        position, attend = self.beside[2:]
        hidden = self.model.encode(tokens, position, attend)
        prob = self.model.head(hidden[:, length:]).softmax(-1, dtype=torch.float32)
        standing = rows.tokens.gather(1, block.at)[..., None]
        rows.memory[SHADOW] = torch.ones_like(rows.tokens, dtype=prob.dtype).scatter(
            1, block.at, prob.gather(2, standing)[..., 0]
        )
        return self.model.head(gather_states(hidden, wanted.at)), wanted

    def shown(self, rows: Canvas, block: Positions) -> Tensor:
        """(B, 1, L + W, L + W) bool."""
        position, (length, width) = rows.position[:, None], (rows.position.shape[1], block.width)
        text = position < rows.stop[:, None, None]
        others = text & (block.at[..., None] != position)
        keys = torch.cat([text.expand(-1, length, -1), others], 1)
        shadows = block.real[:, None].expand(-1, width, -1)
        return torch.cat([keys, F.pad(shadows, (0, 0, length, 0))], 2)[:, None]


@dataclass(frozen=True)
class WideIn(Selection):
    """Positions above `threshold`, the best first, at most 0.7 of the block's masks (5 to 20)."""

    threshold: float = 0.6

    def __post_init__(self) -> None:
        number("threshold", self.threshold)

    def __call__(self, canvas: Canvas) -> Tensor:
        sure = canvas.open & (canvas.confidence > self.threshold)
        most = (0.7 * canvas.open.sum(1)).long().clamp(5, 20)
        return by_rule(canvas, "topk", quota=torch.minimum(sure.sum(1), most))


@dataclass(frozen=True)
class NarrowOut(Revision):
    """Re-mask tokens of the block whose shadow gives them less than `threshold`.

    Only where this step accepted more than one token, and fewer than the step before accepted: so
    the text grows by at least one token per step on average.
    """

    reads_committed = True
    takes_back = True
    threshold: float = 0.9

    def __post_init__(self) -> None:
        number("threshold_back", self.threshold)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        accepted = committed.sum(1)
        limit = canvas.memory.get(self, accepted).masked_fill(canvas.block_step == 1, FIRST_LIMIT)
        prob = canvas.memory[SHADOW]
        doubted = canvas.block & (prob < self.threshold) & ~(canvas.masked | committed)
        order = prob.masked_fill(~doubted, torch.inf).argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)
        count = torch.minimum(doubted.sum(1), limit - 1) * (accepted > 1)
        canvas.remask(rank < count[:, None])
        canvas.memory[self] = accepted


@dataclass(frozen=True)
class Shadowed(Evaluation):
    """A copy of the open block as masks in every forward."""

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        fix = "WINO reads committed positions: use cache='none'"
        require(settings.cache in ("none", "auto"), "cache", settings.cache, fix)
        fix = "WINO judges by the unguided probabilities of a forward of its own: give 0"
        require(settings.cfg_scale == 0, "cfg_scale", settings.cfg_scale, fix)
        native = model.supports_cache and model.shift == 0
        require(native, "sampler", "wino", "it needs a native model whose logits are not shifted")
        return ShadowBlock(model)


@register_sampler("wino", paper="WINO (ICLR 2026)", recorded=("wino",))
def wino(threshold: Probability = 0.6, threshold_back: Probability = 0.9) -> Sampler:
    """Accept all above `threshold`; re-mask what the rest of the block no longer supports."""
    return Sampler(
        select=WideIn(threshold), revisions=(NarrowOut(threshold_back),), evaluate=Shadowed()
    )
