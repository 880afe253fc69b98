"""WINO's shadow: the open block once more, as masks, which judges what stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.caches import gather_states
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Work
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.evaluation import block_ahead, require_no_cache, require_no_guidance
from dlmdecode.settings import Settings

SHADOW = "shadow"  # memory: probability of each standing token as its shadow sees it, (B, L)


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
        block = block_ahead(rows, wanted)
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
class Shadowed(Evaluation):
    """A copy of the open block as masks in every forward."""

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        require_no_cache(settings, "WINO reads committed positions")
        require_no_guidance(settings, "WINO judges by unguided probabilities of its own forward")
        native = model.supports_cache and model.shift == 0
        require(native, "sampler", "wino", "it needs a native model whose logits are not shifted")
        return ShadowBlock(model)
