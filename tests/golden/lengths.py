"""Recorded runs of texts that find their length, as recipes of this library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.guidance import Guided
from dlmdecode.decoding.parts import Revision, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.lengths.base import InitialLength, Room
from dlmdecode.lengths.daedal import Expansion
from dlmdecode.lengths.rho_eos import EosDensity
from dlmdecode.parts.blocks import FixedBlocks


@dataclass(frozen=True)
class AboveThreshold(Selection):
    """Every position more than `threshold` sure, not at least so."""

    threshold: float

    def __call__(self, canvas: Canvas) -> Tensor:
        return canvas.open & (canvas.confidence.float() > self.threshold)


@dataclass(frozen=True)
class CuttingDensity(EosDensity):
    """The authors' cut takes what is written, too."""

    def cut(self, canvas: Canvas, count: Tensor) -> None:
        canvas.truncate(torch.maximum(canvas.stop - count, canvas.start))
        canvas.lo = torch.minimum(canvas.lo, canvas.stop)


@dataclass(frozen=True)
class WaitForOthers(Revision):
    """A row that is complete stays while another one runs: it is lengthened and written again."""

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        full = ~canvas.masked.any(1)
        canvas.held = full & ~full.all()
        canvas.lo = torch.where(canvas.held, canvas.stop, canvas.lo)
        canvas.hi = torch.where(canvas.held, canvas.stop, canvas.hi)


def setup(case: Case, rule: Revision) -> Setup:
    params = case["params"]
    recipe = Sampler(
        select=AboveThreshold(params["high_conf_threshold"]),
        blocks=FixedBlocks(params["block_length"]),
        openings=(InitialLength(params["initial_gen_length"]),),
        revisions=(rule,),
    )
    return Setup(recipe, params["max_gen_length"], cut=True)


def room_of(params: dict[str, Any]) -> Room:
    return Room(params["max_gen_length"], params["block_length"])


class BlindToWritten(Guided):
    """The unconditional half also masks all that was written when the length last changed."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.known: dict[int, tuple[int, Tensor]] = {}  # by row: length, and what it masks

    def given(self, rows: Canvas) -> Tensor:
        written = (rows.position < rows.stop[:, None]) & (rows.tokens != rows.mask_id)
        for row, stop, now in zip(rows.row.tolist(), rows.stop.tolist(), written, strict=True):
            if self.known.get(row, (0, now))[0] != stop:
                self.known[row] = stop, now
        return torch.stack([self.known[row][1] for row in rows.row.tolist()])


@method("rho-eos")
def rho_eos(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rule = CuttingDensity(
        room_of(params),
        params.get("expansion_factor", 8),
        params.get("low_density_threshold", 0.4),
        params.get("high_density_threshold", 0.6),
        params["eos_check_tokens"],
        params.get("scheduler", "exp"),
        "confidence",
        steps=64,
    )
    wait = lambda forward: (WaitForOthers(),)  # noqa: E731
    found = replace(setup(case, rule), quirks=wait, guided=BlindToWritten)
    return replace(found, cfg_scale=params.get("cfg_scale") or 0.0)


@method("daedal")
def daedal(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rule = Expansion(
        room_of(params),
        params.get("expansion_factor", 8),
        params["eos_check_tokens"],
        params.get("eos_confidence_threshold", 0.5),
        params.get("expand_eos_confidence_threshold", 0.9),
        params["low_conf_threshold"],
    )
    return setup(case, rule)
