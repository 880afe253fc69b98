"""dKV-Cache (arXiv 2505.15781): a token is computed once more as a token, then kept."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from dlmdecode.caches.partial import PartialCache
from dlmdecode.caches.registry import register_cache
from dlmdecode.checks import Count, OneOf, conform
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions
from dlmdecode.models.protocol import Denoiser

Kept = Annotated[str, OneOf(("decoded", "prompt"))]


@register_cache("dkv", paper="dKV-Cache (arXiv 2505.15781)", recorded=("dkv-cache",))
class DelayedCache(PartialCache):
    """Compute the masks and the tokens just committed, keep all others. Approximate.

    A row is refreshed where its block is full and every `refresh` forwards of a block, never in
    between if None. `kept="prompt"` computes the whole text and keeps the prompt alone.
    """

    def __init__(self, model: Denoiser, refresh: Count | None = 8, kept: Kept = "decoded"):
        super().__init__(model, "dkv")
        self.every = conform("refresh", refresh, Count | None)
        self.prompt_only = conform("kept", kept, Kept) == "prompt"

    def due(self, rows: Canvas) -> Tensor:
        calls = self.calls[rows.row]
        return calls == 0 if self.every is None else calls % self.every == 0

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        where = rows.text if self.prompt_only else rows.masked
        return where | self.speaking(where)
