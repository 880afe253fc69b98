"""Flash-dLLM's cache (arXiv 2609.26796): a budget of positions is computed anew at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.attended import AttendedCache, Looks
from dlmdecode.caches.registry import register_cache
from dlmdecode.checks import Natural, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered
from dlmdecode.models.protocol import Denoiser, KeyValueHook, attention_weights


@register_cache("flash", paper="Flash-dLLM (arXiv 2609.26796)")
class BudgetCache(AttendedCache):
    """Compute the window's masks, the next masks, and what the window looks at most. Approximate.

    Those are the `ahead` masks behind the window, what was just committed, and of the text that is
    written the `decoded` positions that the window's masks looked at most in the forward before,
    over all heads and layers; of equals the first. After a row's first forward nothing is
    refreshed.
    """

    def __init__(self, model: Denoiser, decoded: Natural = 64, ahead: Natural = 64):
        super().__init__(model, "flash")
        self.decoded = conform("decoded", decoded, Natural)
        self.ahead = conform("ahead", ahead, Natural)

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        masks = rows.masked & seen
        behind = masks & (rows.position >= wanted.hi[:, None])
        near = behind & (behind.cumsum(1) <= self.ahead)
        window = masks & wanted.contains(rows.position)
        written = rows.text & ~rows.masked & seen & ~self.changed(rows)
        mass = self.looked_at(rows, written).masked_fill(~written, -1)
        best = mass.argsort(dim=1, descending=True, stable=True)[:, : self.decoded]
        most = torch.zeros_like(written).scatter(1, best, True) & written
        return self.speaking(window | near) | most

    def looking(
        self, rows: Canvas, wanted: Positions, query: Scattered, mix: KeyValueHook
    ) -> Looks:
        window = self.speaking(wanted.contains(rows.position) & rows.masked)
        return Mass(mix, query, Scattered(window & query.where))


class Mass(Looks):
    """How much the positions `window`, of those at `query`, look at each: summed over heads and
    layers."""

    def __init__(self, mix: KeyValueHook, query: Scattered, window: Scattered):
        super().__init__(mix)
        self.column, self.real = query.column(window.at), window.real
        self.total = torch.zeros(query.where.shape, dtype=torch.float32, device=query.at.device)

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        column, real = self.column.to(keys.device), self.real.to(keys.device)
        rows = torch.arange(len(column), device=keys.device)[:, None]
        if attend is not None and attend.shape[2] > 1:
            attend = attend.expand(len(column), -1, -1, -1)[rows, :, column].transpose(1, 2)
        looks = attention_weights(queries[rows, :, column].transpose(1, 2), keys, attend)
        looks = (looks * real[:, None, :, None]).sum((1, 2))
        self.total += looks.to(self.total.device)

    def mass(self) -> Tensor:
        return self.total
