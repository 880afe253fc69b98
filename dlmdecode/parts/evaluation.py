"""What forwards of a sampler's own have in common: what they look at, and what they refuse."""

from __future__ import annotations

import torch

from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.models.protocol import Denoiser
from dlmdecode.settings import Settings


def require_no_cache(settings: Settings, why: str) -> None:
    """Raise `ValueError` for a call with a cache."""
    fix = f"{why}: use cache='none'"
    require(settings.cache in ("none", "auto"), "cache", settings.cache, fix)


def require_no_guidance(settings: Settings, why: str) -> None:
    """Raise `ValueError` for a call with guidance."""
    require(settings.cfg_scale == 0, "cfg_scale", settings.cfg_scale, f"{why}: give 0")


def require_attention(model: Denoiser, settings: Settings, name: str) -> None:
    """Raise `ValueError` unless the sampler `name` can watch what all positions attend to."""
    why = f"{name} reads the attention of the text itself, all of it"
    require_no_cache(settings, why)
    require_no_guidance(settings, why)
    full = model.supports_cache and model.block_length is None and model.num_layers
    require(bool(full), "sampler", name, "it needs a native model of full attention")


def block_ahead(rows: Canvas, wanted: Positions) -> Positions:
    """The open block of each row, or the next one, of the `wanted` positions, where it is full."""
    if not any(row.full for row in rows.seen):
        return rows.block_span
    if all(row.full for row in rows.seen):
        return wanted
    full = rows.block_full
    return Span(torch.where(full, wanted.lo, rows.lo), torch.where(full, wanted.hi, rows.hi))
