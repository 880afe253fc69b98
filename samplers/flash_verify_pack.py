"""Flash-Verify's forward: drafts beside the canvas, each seen by those that come after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlmdecode.caches import Recompute, gather_states, view
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.evaluation import require_no_cache
from dlmdecode.settings import Settings

ORDER = "order of drafts"  # memory: 1, 2, … where a draft stands, 0 elsewhere, (B, L) int64


def in_order(order: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the drafts, the first one first, (N, n) int64, and which of them are, bool."""
    count = (order > 0).sum(1)
    last = torch.iinfo(order.dtype).max
    at = order.masked_fill(order == 0, last).argsort(dim=1, stable=True)[:, : int(count.max())]
    return at, torch.arange(at.shape[1], device=at.device) < count[:, None]


class PackedRows(Recompute):
    """No cache; where drafts stand there is a mask, and the drafts are behind the canvas.

    Every query sees each of their positions once, as a mask or as a draft: draft i the drafts up to
    itself and the masks of later ones, the mask of draft i the drafts before it and the masks from
    itself on, and all others the masks.
    """

    gaps = False

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        order = rows.memory[ORDER]
        drafts, real = in_order(order)
        if not drafts.shape[1]:
            return super().__call__(rows, wanted)
        masked = replace(rows, tokens=rows.tokens.masked_fill(order > 0, rows.mask_id))
        tokens, at, shown = view(masked, wanted)
        tokens = torch.cat([tokens, rows.tokens.gather(1, drafts)], 1)
        position = torch.cat([at, drafts], 1)
        seen = who_sees_whom(order.gather(1, at), order.gather(1, drafts) * real, shown)
        self.work.add(tokens)
        attend = self.model.attention(position, position, seen)
        hidden = self.model.encode(tokens, position, attend)
        return self.model.head(gather_states(hidden, wanted.at)), wanted


def who_sees_whom(masks: Tensor, drafts: Tensor, shown: Tensor | None) -> Tensor:
    """(N, 1, W + n, W + n) bool, of W positions of a canvas and n drafts behind it.

    Args:
        masks: (N, W) int64, which draft a position is the mask of, 0 for none.
        drafts: (N, n) int64, which one each draft is, 0 for none.
        shown: which of the W are seen at all, (N, 1, 1, W) bool; None is all.
    """
    before = torch.cat([masks, drafts + 1], 1)[..., None]  # drafts that a query sees as such
    as_mask = (masks == 0)[:, None] | (masks[:, None] >= before)
    as_draft = (drafts > 0)[:, None] & (drafts[:, None] < before)
    if shown is not None:
        as_mask = as_mask & shown[:, 0]
    return torch.cat([as_mask, as_draft], 2)[:, None]


@dataclass(frozen=True)
class DraftsBeside(Evaluation):
    """Drafts in the same row as their canvas, in one forward over both."""

    sees_suffix = True

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        require_no_cache(settings, "Flash-Verify computes whole canvases")
        native = model.supports_cache and model.shift == 0
        fix = "it needs a native model whose logits are not shifted"
        require(native, "sampler", "flash_verify", fix)
        return PackedRows(model)
