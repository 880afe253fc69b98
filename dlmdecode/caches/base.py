"""What every cache policy starts from. Shapes as in `models/protocol.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dlmdecode.caches.registry import register_cache
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Work
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser, KeyValueHook


def visible(stop: Tensor, length: int) -> Tensor | None:
    """Keys before `stop` (N,), as a mask (N, 1, 1, length); None where nothing is hidden."""
    if bool((stop >= length).all()):
        return None
    return (torch.arange(length, device=stop.device) < stop[:, None])[:, None, None]


def attention_mask(model: Denoiser, rows: Canvas, query: Tensor, length: int) -> Tensor | None:
    """Who sees whom in a forward over the canvas: the model's pattern, up to where each row stops.

    Args:
        query: (N, W) int64, positions of the tokens of the forward.
        length: the keys are those of positions 0 to `length` − 1.

    Returns:
        A bool mask that broadcasts to (N, 1, W, length), or None where all is seen.
    """
    return model.attention(query, rows.position[:, :length], visible(rows.stop, length))


def require_hook(model: Denoiser, cache: str) -> None:
    """Raise `ValueError` unless the model hands out keys and values, as this cache needs them."""
    fix = "a wrapped module (or a compiled one) keeps no keys and values: use 'none'"
    require(model.supports_cache, "cache", cache, fix)


def gather_states(hidden: Tensor, index: Tensor) -> Tensor:
    """Hidden states (N, W, D) at columns `index` (N, W) of `hidden` (N, ·, D)."""
    return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))


@register_cache("none")
class Recompute:
    """Keep nothing: every forward computes the whole canvas. Exact."""

    hook: KeyValueHook | None = None  # what a subclass hands to the model

    def __init__(self, model: Denoiser):
        self.model, self.work = model, Work()

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        length = int(rows.stop.max())
        tokens, position = rows.tokens[:, :length], rows.position[:, :length]
        self.work.add(tokens)
        attend = attention_mask(self.model, rows, position, length)
        hidden = self.model.encode(tokens, position, attend, self.hook)
        at = (wanted.at - self.model.shift).clamp(min=0)
        return self.model.head(gather_states(hidden, at)), wanted


class ShownUntil:
    """Another forward, shown nothing at or behind the positions (N,) that `stop` gives its rows."""

    def __init__(self, forward: Forward, stop: Callable[[Canvas], Tensor]):
        self.forward, self.stop, self.work = forward, stop, forward.work

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        stop = torch.minimum(self.stop(rows), rows.stop)
        return self.forward(replace(rows, stop=stop), wanted.within(rows.start, stop))
