"""d²Cache (arXiv 2509.23094): what is nearly certain is computed, and what is looked at most."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.caches.attended import AttendedCache, Looks
from dlmdecode.caches.base import gather_states, shifted
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.rollout import Rollout
from dlmdecode.caches.store import nothing
from dlmdecode.checks import Count, Natural, Positive, Probability, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook
from dlmdecode.parts.density import certainty_density


@register_cache("d2", paper="d²Cache (arXiv 2509.23094)", recorded=("d2-caches",))
class CertainCache(AttendedCache):
    """Compute the masks that are nearly certain, and what is looked at most. Approximate.

    Those are the `masks` with the highest confidence times certainty density of width `sigma`, the
    open block's first, and of all other positions those that the share `nucleus` of attention goes
    to, by its rollout over the layers; then the gaps between two that are at most `gap` apart.
    What stands elsewhere in the block keeps the proposal that it had. After a row's first forward
    nothing is refreshed.
    """

    def __init__(
        self,
        model: Denoiser,
        masks: Count = 32,
        nucleus: Probability = 0.1,
        sigma: Positive = 10.0,
        gap: Natural = 0,
    ):
        super().__init__(model, "d2")
        self.masks, self.gap = conform("masks", masks, Count), conform("gap", gap, Natural)
        self.share = conform("nucleus", nucleus, Probability)
        self.sigma = conform("sigma", sigma, Positive)
        self.confidence = nothing(2, torch.float32)  # (R, L) of masks, as they were computed last
        self.asked = nothing(2, torch.bool)  # (R, L) masks that were wanted then

    def begin(self, rows: Canvas) -> None:
        super().begin(rows)
        self.confidence, self.asked = (
            self.store.room(kept, rows) for kept in (self.confidence, self.asked)
        )
        self.asked[rows.row[rows.nfe == 0]] = False

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        here = wanted.contains(rows.position) & rows.masked & seen
        new = here & ~self.asked[rows.row, : here.shape[1]]  # nobody has a proposal there
        where = self.speaking(self.certain(rows, wanted, seen) | new) | self.changed(rows)
        return bridged(where & seen | self.nucleus(rows, seen & ~where), self.gap)

    def nucleus(self, rows: Canvas, others: Tensor) -> Tensor:
        """Of the `others` (N, L) bool the best that get at most the share, at least one."""
        best, order = self.looked_at(rows, others).sort(dim=1, descending=True, stable=True)
        total = best.cumsum(1)
        within = total <= self.share * total[:, -1:]
        within[:, 0] = True
        return torch.zeros_like(within).scatter(1, order, within) & others

    def certain(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        """The best masks up to the end of the block that holds the last of as many, (N, L) bool."""
        masks = rows.masked & seen
        place = rows.text.cumsum(1) - 1 - rows.before(wanted.lo)[:, None]
        block = place // wanted.count.clamp(min=1)[:, None]
        nearest = masks & (masks.cumsum(1) <= self.masks)
        last = block.masked_fill(~nearest, -1).amax(1, keepdim=True)
        return self.best(rows, masks & (block <= last), wanted.contains(rows.position))

    def best(self, rows: Canvas, masks: Tensor, first: Tensor) -> Tensor:
        """The best of the `masks` (N, L) bool, those that come `first` before all others."""
        score = self.confidence[rows.row, : masks.shape[1]] * certainty_density(rows, self.sigma)
        score = score + 2 * first  # it is 1 at most
        best = score.masked_fill(~masks, -torch.inf).argsort(dim=1, descending=True, stable=True)
        return torch.zeros_like(masks).scatter(1, best[:, : self.masks], True) & masks

    def looking(
        self, rows: Canvas, wanted: Positions, query: Scattered, mix: KeyValueHook
    ) -> Looks:
        return Rollout(mix, query)

    def answer(
        self, rows: Canvas, wanted: Positions, query: Scattered, hidden: Tensor
    ) -> tuple[Tensor, Positions]:
        own = rows.branch == 0
        here = (wanted.contains(rows.position) & rows.masked)[own]
        self.asked[rows.row[own], : here.shape[1]] = here
        before = (rows.position - self.model.shift).clamp(min=0)
        masks = Scattered(rows.masked & query.contains(before))
        self.note(rows, masks, gather_states(hidden, query.column(shifted(masks, self.model))))
        return super().answer(rows, wanted, query, hidden)

    def note(self, rows: Canvas, masks: Scattered, states: Tensor) -> None:
        """Keep how confident the model is at the masks, of their states (N, W, D)."""
        own = rows.branch == 0
        logits = self.model.head(states)
        found = ops.propose(logits.flatten(0, 1), exclude=rows.mask_id, wait=False)
        prob = found.log_prob.exp().view(masks.at.shape)
        kept = self.confidence[rows.row, : rows.tokens.shape[1]]
        some = (masks.count > 0)[:, None]  # short rows repeat their last
        prob = torch.where(some, prob, kept.gather(1, masks.at))
        kept = kept.scatter(1, masks.at, prob)
        self.confidence[rows.row[own], : kept.shape[1]] = kept[own]


def bridged(where: Tensor, gap: int) -> Tensor:
    """`where` (N, L), and all between two of them that are at most `gap` apart."""
    far = where.shape[1] + gap + 1
    place = torch.arange(where.shape[1], device=where.device).expand_as(where)
    before = place.masked_fill(~where, -far).cummax(1).values
    behind = place.masked_fill(~where, 2 * far).flip(1).cummin(1).values.flip(1)
    return where | (behind - before <= gap)
