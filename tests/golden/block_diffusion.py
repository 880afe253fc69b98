"""Recorded runs of block-diffusion models beside SDAR's: their parameters, and parts for what their
code does and the library does not. The table in docs/golden.md lists these with the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method, sdar
from quirks import EntropySum
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision, Selection


@dataclass(frozen=True)
class ConfidenceEntropySum(EntropySum):
    """DreamReasoner adds up −c ln c of the confidences alone."""

    def entropy(self, canvas: Canvas) -> Tensor:
        return torch.special.entr(canvas.confidence)


@dataclass(frozen=True)
class RestInLastStep(Selection):
    """DreamReasoner's last step of a block commits all that is left."""

    select: Selection
    steps: int

    def __call__(self, canvas: Canvas) -> Tensor:
        last = canvas.block_step >= self.steps - 1
        return torch.where(last[:, None], canvas.open, self.select(canvas))


@dataclass(frozen=True)
class CutToLength(Revision):
    """DreamReasoner fills the last block, and cuts the text to its length when all is written."""

    length: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        canvas.stop = torch.where(canvas.done, canvas.start + self.length, canvas.stop)


@method("dream-reasoner")
def dream_reasoner(case: Case, folder: Path) -> Setup:
    params = case["params"] | {"stopping_criteria_idx": None}
    like = sdar(case | {"params": params}, folder)
    select: Any = like.sampler.select
    if params["remasking_strategy"] == "entropy_bounded":
        select = ConfidenceEntropySum(params["eb_threshold"])
    rest = RestInLastStep(select, params["denoising_steps"])

    def more(forward: Any) -> tuple[Revision, ...]:
        return (*like.quirks(forward), CutToLength(params["gen_length"]))

    return replace(like, sampler=replace(like.sampler, select=rest), quirks=more, cut=True)
