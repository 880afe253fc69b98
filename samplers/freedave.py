"""FreeDave (arXiv 2510.00294): draft the next commits, verify them in one forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches import PackedDrafts
from dlmdecode.canvas import Canvas
from dlmdecode.checks import Count, OneOf, Probability, require
from dlmdecode.forward import Forward
from dlmdecode.models.base import Denoiser
from dlmdecode.registry import register_sampler
from dlmdecode.sampler import Choose, Sampler
from dlmdecode.select import Threshold, by_rule
from dlmdecode.settings import Settings
from dlmdecode.verify import Lookahead, fan_out

MODES = ("batch", "tree")


@dataclass(frozen=True)
class ConfidentLookahead(Lookahead):
    """FreeDave++: drafts add the surest positions one by one to a threshold commit. Not lossless.

    From the draft reached, jump to the furthest draft whose tokens all agree with what the reached
    one really becomes. The text visits states that threshold decoding would not.
    """

    lossless = False

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        def surest(rows: Canvas) -> Tensor:
            ranked = replace(rows, confidence=rows.proposal.prob)
            return by_rule(ranked, "topk", quota=torch.ones_like(rows.lo))

        rows = fan_out(canvas, self.depth, surest)
        grown = torch.ones_like(rows.block_full)
        grown[1:] = (rows.tokens[1:] != rows.tokens[:-1]).any(1)
        return rows.take(((rows.branch == 0) | grown).nonzero()[:, 0])

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth = rows.take(torch.arange(len(rows), device=rows.lo.device))
        truth.commit(choose(truth))
        full = rows.block_full & (rows.branch > 0)
        best = []
        for first in (rows.branch == 0).nonzero()[:, 0].tolist():
            last = first + 1
            while last < len(rows) and rows.branch[last] > 0:
                last += 1
            best.append(self.furthest(rows.tokens, truth.tokens, full, rows.mask_id, first, last))
        picked = rows.take(torch.tensor(best, device=rows.lo.device))
        return replace(picked, branch=torch.zeros_like(picked.branch))

    def furthest(
        self, draft: Tensor, truth: Tensor, full: Tensor, mask_id: int, first: int, last: int
    ) -> int:
        """The row to keep; one whose next commit fills the block as a verified draft does."""
        reached = first
        while True:
            agrees = [
                j
                for j in range(reached + 1, last)
                if ((draft[j] == truth[reached]) | (draft[j] == mask_id)).all()
            ]
            if not agrees or full[agrees[-1]]:
                return reached
            reached = agrees[-1]


def packed_drafts(model: Denoiser, settings: Settings) -> Forward:
    """Drafts side by side in one row, under a cache whose keys and values they share."""
    fix = "packed drafts share cached keys and values: set cache='prefix' or cache='dual'"
    require(settings.cache in ("prefix", "dual"), "draft_mode", "tree", fix)
    return PackedDrafts(model, dual=settings.cache == "dual")


@register_sampler(
    "freedave",
    over="vanilla",
    paper="arXiv 2510.00294",
    presets={"Dream": {"draft_steps": 8}},
)
def freedave(
    draft_steps: Count = 4,
    draft_mode: Annotated[str, OneOf(MODES)] = "batch",
    threshold: Probability | None = None,
) -> Sampler:
    """Verify up to `draft_steps` drafted commits a forward; lossless unless `threshold` is set."""
    packed = Sampler(evaluate=packed_drafts if draft_mode == "tree" else None)
    if threshold is None:
        return packed.merge(Sampler(verify=Lookahead(draft_steps)))
    return packed.merge(Sampler(Threshold(threshold), verify=ConfidentLookahead(draft_steps)))
