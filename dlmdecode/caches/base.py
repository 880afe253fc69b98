"""What every cache policy starts from. Shapes as in `models/protocol.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.view import view
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Headed, Work
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser, KeyValueHook


def require_hook(model: Denoiser, cache: str) -> None:
    """Raise `ValueError` unless the model hands out keys and values, as this cache needs them."""
    fix = "a wrapped module (or one compiled or hooked) keeps no keys and values: use 'none'"
    require(model.supports_cache, "cache", cache, fix)


def require_full_attention(model: Denoiser, cache: str) -> None:
    """Raise `ValueError` for a model whose attention is causal between blocks."""
    fix = "it approximates full attention; this model's blocks are causal: use 'block', exact"
    require(model.block_length is None, "cache", cache, fix)


def gather_states(hidden: Tensor, index: Tensor) -> Tensor:
    """Hidden states (N, W, D) at columns `index` (N, W) of `hidden` (N, ·, D)."""
    return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))


@register_cache("none")
class Recompute(Headed):
    """Keep nothing: every forward computes the whole canvas. Exact."""

    slides, gaps = None, True
    hook: KeyValueHook | None = None  # what a subclass hands to the model

    def __init__(self, model: Denoiser):
        self.model, self.work = model, Work()

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        tokens, at, shown = view(rows, wanted)
        self.work.add(tokens)
        attend = self.model.attention(at, at, shown)
        hidden = self.model.encode(tokens, at, attend, self.hook)
        return gather_states(hidden, shifted(wanted, self.model)), wanted


def shifted(wanted: Positions, model: Denoiser) -> Tensor:
    """The positions whose states predict the wanted ones, (N, W) int64."""
    return (wanted.at - model.shift).clamp(min=0) if model.shift else wanted.at


class ShownUntil:
    """Another forward, shown nothing at or behind the positions (N,) that `stop` gives its rows."""

    def __init__(self, forward: Forward, stop: Callable[[Canvas], Tensor]):
        self.forward, self.stop, self.work = forward, stop, forward.work
        self.slides = getattr(forward, "slides", False)
        self.guides = getattr(forward, "guides", True)

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        stop = torch.minimum(self.stop(rows), rows.stop)
        return self.forward(replace(rows, stop=stop), wanted.within(rows.start, stop))
