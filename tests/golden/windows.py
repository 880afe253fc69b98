"""Recorded runs whose model sees a part of the canvas, or whose window slides: their parameters,
and parts for what their code does and the library does not. See docs/golden.md for the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import quirks
import torch
from harness import Case, Setup
from methods import dream_fastdllm, method, scheduled
from torch import Tensor

from dlmdecode.caches import visible
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Span
from dlmdecode.samplers.streaming import FallingThreshold


@dataclass(frozen=True)
class BlockOverVisible(FallingThreshold):
    """Streaming-dLLM, dual cache: the block's masks over all that is visible from it on."""

    ratio: str = "visible"

    def left(self, canvas: Canvas) -> Tensor:
        seen = visible(canvas, Span(canvas.lo, canvas.hi))
        seen = seen & (canvas.position >= canvas.lo[:, None])
        share = canvas.open.sum(1).double() / seen.sum(1)
        return torch.where(canvas.block_step == 0, 1, share)


@method("suffix-window")
def suffix_window(case: Case, folder: Path) -> Setup:
    params = case["params"]
    recipe = scheduled(params, params["gen_length"], params["block_length"])
    if params.get("factor") is not None:
        recipe = replace(recipe, select=quirks.FactorWithLast(params["factor"]))
    elif params["threshold"] is not None:
        rule = FallingThreshold(params["threshold"], params["confidence_alpha"], "visible")
        recipe = replace(recipe, select=rule)
    return Setup(
        recipe,
        params["gen_length"],
        "prefix",
        dtype=torch.float64,
        quirks=lambda forward: (quirks.EndAfterBlockWithEos(),),
        suffix=params["window_size"],
        suffix_tail=1,
    )


@method("dream-suffix-window")
def dream_suffix_window(case: Case, folder: Path) -> Setup:
    params = case["params"]
    setup = dream_fastdllm(case, folder)
    if params["alg"] == "confidence_threshold":
        falling = BlockOverVisible if params["dual_cache"] else FallingThreshold
        rule = falling(params["threshold"], params["confidence_alpha"], "visible")
        setup.sampler = replace(setup.sampler, select=quirks.FirstTokenOnly(rule))
    idle = setup.quirks

    def more(forward: Any) -> tuple[Any, ...]:
        return (*idle(forward), quirks.EndAfterBlockWithEos())

    return replace(setup, quirks=more, suffix=params["window_size"], suffix_tail=1)
