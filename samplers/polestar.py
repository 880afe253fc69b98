"""Polestar's early commit (arXiv 2607.14107): take a token whose attention has just moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches import Recompute
from dlmdecode.checks import Probability, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import BlockSchedule, Evaluation, Part, Selection
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser, Watch, attention_weights
from dlmdecode.parts.evaluation import block_ahead, require_attention
from dlmdecode.parts.select import by_rule
from dlmdecode.registry import register_sampler
from dlmdecode.settings import Settings

DRIFT, BLOCK, KEPT, MOVES = "attention drift", "its block", "attention before", "moves"  # memory
RECENT, FLOOR = 5, 1e-12  # moves that a new one is compared with; least probability


class LastAttention(Watch):
    """What the positions of `block` look at in the last layer: `weights` (N, H, W, T)."""

    def __init__(self, last: int, block: Positions):
        self.last, self.block, self.weights = last, block, torch.empty(0)

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        if layer == self.last:
            at = self.block.at.to(queries.device)[:, None, :, None]
            own = queries.gather(2, at.expand(-1, queries.shape[1], -1, queries.shape[3]))
            self.weights = attention_weights(own, keys, attend)


@dataclass(frozen=True)
class AttentionDrift(Evaluation):
    """Remembers the drift of attention at each position of the block, in nats.

    KL(now ‖ step before), the mean over the last layer's heads, less the mean of the last five.
    """

    compares_steps = True
    stateful = True

    def refuses(self, other: Part) -> str | None:
        slides = isinstance(other, BlockSchedule) and other.slides
        return "it compares the attention of one block from step to step" if slides else None

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        require_attention(model, settings, "polestar")
        return Drifting(model)


class Drifting(Recompute):
    """No cache, and the drift of each row."""

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        block = block_ahead(rows, wanted)
        self.hook = watch = LastAttention((self.model.num_layers or 0) - 1, block)
        found = super().__call__(rows, wanted)
        hidden = rows.tokens.shape[1] - watch.weights.shape[3]
        now = F.pad(watch.weights.transpose(1, 2), (0, hidden))
        rows.memory[DRIFT] = self.drift(rows, block, now.to(rows.lo.device))
        return found

    def drift(self, rows: Canvas, block: Positions, now: Tensor) -> Tensor:
        """(N, L), −inf where it is unknown, from attention (N, W, H, L); keeps what is needed."""
        moves = past = now.new_full((*now.shape[:2], RECENT), torch.nan)
        if KEPT in rows.memory:
            before = as_large(rows.memory[KEPT], now.shape)
            moves = as_large(rows.memory[MOVES], moves.shape)
            same = (rows.memory[BLOCK] == block.lo + 1)[:, None, None]
            past = torch.where(same, moves, torch.nan)
            ratio = now.clamp(min=FLOOR).log() - before.clamp(min=FLOOR).log()
            move = (now.clamp(min=FLOOR) * ratio).sum(-1).mean(-1, keepdim=True)
            moves = torch.cat([past[..., 1:], torch.where(same, move, torch.nan)], -1)
        rows.memory |= {BLOCK: block.lo + 1, KEPT: now, MOVES: moves}
        drift = moves[..., -1] - past.nanmean(-1).nan_to_num(0)
        drift = drift.nan_to_num(-torch.inf).gather(1, block.column(rows.position))
        return drift.masked_fill(~block.contains(rows.position), -torch.inf)


def as_large(kept: Tensor, shape: torch.Size) -> Tensor:
    """`kept`, cut to `shape`, with zeros behind it."""
    kept = kept[tuple(slice(size) for size in shape)]
    more = [wide - own for wide, own in zip(shape, kept.shape, strict=True)]
    return F.pad(kept, [n for size in reversed(more) for n in (0, size)])


@dataclass(frozen=True)
class Early(Selection):
    """All at least `threshold` sure; above `early` those whose drift is 10 (0.9 − c)² to 2."""

    threshold: float = 0.9
    early: float = 0.7

    def __call__(self, canvas: Canvas) -> Tensor:
        sure = canvas.confidence
        where = by_rule(canvas, "threshold", threshold=self.threshold)
        moved = canvas.memory.get(DRIFT, torch.full_like(sure, -torch.inf))
        enough = (moved >= 10 * (0.9 - sure) ** 2) & (moved < 2)  # published so for any threshold
        return where | (canvas.open & (sure > self.early) & enough)


@register_sampler("polestar", paper="arXiv 2607.14107, its code not recorded")
def polestar(threshold: Probability = 0.9, early: Probability = 0.7) -> Sampler:
    """Commit what is confident, and a little earlier what has just seen something new."""
    require(early < threshold, "early", early, f"give less than threshold={threshold}")
    return Sampler(Early(threshold, early), evaluate=AttentionDrift())
