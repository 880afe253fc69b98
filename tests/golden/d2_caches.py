"""Recorded caches of d²Cache's framework: their parameters, and parts for what its code does and
the library does not. See docs/golden.md for the reasons.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decoders import Count, d2
from harness import Case, Setup
from methods import DELIBERATE, method
from torch import Tensor

from dlmdecode.caches import BlockCache, CertainCache, gather_states
from dlmdecode.caches.features import FeatureCache
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.parts.select import Threshold, TopK
from dlmdecode.samplers.certainty import CertaintyDensity


class ShiftedSlice(BlockCache):
    """Where logits are shifted the slice that is recomputed begins and ends one position earlier,
    and its keys and values replace all that were kept there."""

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window, shift = self.window(rows, wanted), self.model.shift
        piece = Span(window.lo - shift, window.hi - shift)
        tokens = rows.tokens.gather(1, piece.at)
        self.work.add(tokens)
        mix = self.store.mixing(rows, piece.at, rows.tokens.shape[1])
        hidden = self.model.encode(tokens, piece.at, None, mix)
        wanted = wanted.within(window.lo, window.hi)
        return gather_states(hidden, piece.column(wanted.at - shift)), wanted


class FirstConfidences(CertainCache):
    """d²Cache writes the confidences of a step into a copy, so that those of the first stay; it has
    no masks computed only because their block is opened, and takes the masks that the block had at
    the step before for the block itself, as if blocks of so many positions began with the text."""

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        self.block = self.asked[rows.row, : seen.shape[1]].clone()
        self.asked[:] = True
        return super().chosen(rows, wanted, seen)

    def certain(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        masks, size = rows.masked & seen, self.block.sum(1, keepdim=True).clamp(min=1)
        place = rows.position - rows.start[:, None]
        nearest = masks & (masks.cumsum(1) <= self.masks)
        last = place.masked_fill(~nearest, -1).amax(1, keepdim=True)
        return self.best(rows, masks & (place < (last // size + 1) * size), self.block)

    def nucleus(self, rows: Canvas, others: Tensor) -> Tensor:
        """Where logits are shifted the last position of the prompt counts among them, and is left
        out."""
        last = (rows.position == rows.start[:, None] - 1) & (self.model.shift > 0)
        return super().nucleus(rows, others | last) & ~last

    def note(self, rows: Canvas, masks: Scattered, states: Tensor) -> None:
        if rows.nfe.max() == 0:
            super().note(rows, masks, states)


DELIBERATE["d2-caches"] = (
    (
        lambda case: case["id"] in ("d2-caches-dev-0040", "d2-caches-dev-0044"),
        "dLLM-Cache: which of equal similarities is the least hangs on float32's last digit",
    ),
)


@method("d2-caches")
def d2_caches(case: Case, folder: Path) -> Setup:
    params = case["params"]
    options = dict(params["cache"])
    kind = options.pop("cache")
    select: Any = TopK(Count(params["num_transfer_tokens"]))
    if params["threshold"] is not None:
        select = Threshold(params["threshold"])
    scores = [] if params["sigma"] is None else [CertaintyDensity(params["sigma"])]
    setup = d2(case, select, *scores)
    if kind == "PrefixCache":
        setup.leaf = lambda model: ShiftedSlice(model, options["use_dual"])
    elif kind == "d2Cache":
        names = ("current_k", "rollout_p", "sigma", "inflate_w")
        setup.leaf = lambda model: FirstConfidences(model, *(options[name] for name in names))
    elif kind == "dLLMCache":
        setup.leaf = lambda model: FeatureCache(model, options["kp"], options["kr"], options["rou"])
    return setup
