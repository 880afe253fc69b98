"""What every cache policy starts from. Shapes as in `models/base.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.registry import register_cache
from dlmdecode.decoding.canvas import Canvas, Positions
from dlmdecode.decoding.forward import Work
from dlmdecode.models.protocol import Denoiser


def visible(stop: Tensor, length: int) -> Tensor | None:
    """Keys before `stop` (N,), as a mask (N, 1, 1, length); None where nothing is hidden."""
    if bool((stop >= length).all()):
        return None
    return (torch.arange(length, device=stop.device) < stop[:, None])[:, None, None]


def gather_states(hidden: Tensor, index: Tensor) -> Tensor:
    """Hidden states (N, W, D) at columns `index` (N, W) of `hidden` (N, ·, D)."""
    return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))


@register_cache("none")
class Recompute:
    """Keep nothing: every forward computes the whole canvas. Exact."""

    def __init__(self, model: Denoiser):
        self.model, self.work = model, Work()

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        length = int(rows.stop.max())
        tokens = rows.tokens[:, :length]
        self.work.add(tokens)
        hidden = self.model.encode(tokens, rows.position[:, :length], visible(rows.stop, length))
        at = (wanted.at - self.model.shift).clamp(min=0)
        return self.model.head(gather_states(hidden, at)), wanted
