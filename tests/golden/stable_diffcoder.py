"""Recorded runs of Stable-DiffCoder: their parameters, and parts for what only its code does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method
from quirks import SaveLastBlock, SavingCalls
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import AlignedBlocks
from dlmdecode.parts.remasking import first
from dlmdecode.parts.select import Threshold, TopK


@dataclass(frozen=True)
class MaskQuota:
    """The masks that a block began with, spread over `steps`, the first ones taking the rest."""

    steps: int

    def __call__(self, canvas: Canvas) -> Tensor:
        more = canvas.block_step < canvas.block_masks % self.steps
        return canvas.block_masks // self.steps + more.long()


class SavesPart(SavingCalls):
    """The last block gets its call too where the text ends inside it."""

    def final(self, rows: Canvas) -> Tensor:
        return torch.where(rows.done, rows.stop, super().final(rows))


@dataclass(frozen=True, eq=False)
class EndWithEos(Revision):
    """A finished block with a stop id ends the text: the rest of the block becomes that id, and
    the block gets no call to save it."""

    stop_id: int
    save: SaveLastBlock

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        stops = (canvas.tokens == self.stop_id) & canvas.block
        over = canvas.block_full & stops.any(1)
        if not over.all():
            return self.save(canvas, committed)
        behind = (canvas.position > first(stops)[:, None]) & canvas.block
        canvas.tokens = canvas.tokens.masked_fill(behind, self.stop_id)
        canvas.stop = canvas.hi


@method("stable-diffcoder")
def stable_diffcoder(case: Case, folder: Path) -> Setup:
    params = case["params"]
    block, length = params["block_length"], params["gen_length"]
    select: Any = TopK(MaskQuota(params["steps"] // (length // block)))
    if params["threshold"] is not None:
        select = Threshold(params["threshold"])

    def leaf(model: Any) -> Any:
        other = copy.copy(model)
        other.block_length = block
        return SavesPart(other)

    def more(forward: Any) -> tuple[Revision, ...]:
        save = SaveLastBlock(forward)
        return (save if params["eos_id"] is None else EndWithEos(params["eos_id"], save),)

    recipe = Sampler(select=select, blocks=AlignedBlocks(block))
    return Setup(recipe, length, leaf=leaf, quirks=more, dtype=torch.float64, cut=True)
