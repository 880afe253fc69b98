"""Recorded runs of LLaDA2.0 and 2.1: their parameters, and how their code ends a text."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method
from quirks import BlockQuota, EndWithBlock, ThresholdOrQuota
from torch import Tensor

from dlmdecode.caches import Recompute
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import AlignedBlocks
from dlmdecode.parts.remasking import first
from dlmdecode.samplers.edit import Edits


@dataclass(frozen=True)
class EndOnceWritten(Revision):
    """Ends the text in the step that writes a stop id, if no mask is left before the first one."""

    stop_id: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        stops = (canvas.tokens == self.stop_id) & canvas.text
        at = first(stops)
        open = (canvas.masked & (canvas.position < at[:, None])).any(1)
        ends = (stops & committed).any(1) & ~open
        canvas.truncate(torch.where(ends, at + 1, canvas.stop))


@dataclass(frozen=True)
class CutText(Revision):
    """The last block is filled; then the text is cut to its length and behind a stop id."""

    stop_id: int
    length: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        stop_ids = (canvas.tokens == self.stop_id) & canvas.text
        end = torch.minimum(first(stop_ids) + 1, canvas.start + self.length)
        canvas.stop = torch.where(canvas.done, torch.minimum(end, canvas.stop), canvas.stop)


@dataclass(frozen=True)
class TokensAStep:
    """The same number in every step, or all that are left."""

    count: int

    def __call__(self, canvas: Canvas) -> Tensor:
        return canvas.open.sum(1).clamp(max=self.count)


@method("llada2-moe")
def llada2_moe(case: Case, folder: Path) -> Setup:
    params = case["params"]
    block, length, eos = params["block_length"], params["gen_length"], params["eos_id"]
    edits = params["file"] == "2.1"
    quota: Any = BlockQuota(block, min(params["steps"], length // params["minimal_topk"]))
    end: tuple[Revision, ...] = (EndWithBlock((eos,)),)
    if edits:
        quota = TokensAStep(params["num_to_transfer"])
        end = end if params["eos_early_stop"] else ()
    elif params["eos_early_stop"]:
        end = (EndOnceWritten(eos), *end)
    recipe = Sampler(
        select=ThresholdOrQuota(params["threshold"], quota), blocks=AlignedBlocks(block)
    )
    if edits:
        again = Edits(params["editing_threshold"], params["max_post_steps"])
        recipe = replace(recipe, revisions=(again,))

    def leaf(model: Any) -> Any:
        other = copy.copy(model)
        other.block_length = block
        return Recompute(other)

    num_blocks = -(-(len(case["prompt"]) + length) // block)
    return Setup(
        recipe,
        num_blocks * block - len(case["prompt"]),
        leaf=leaf,
        quirks=lambda forward: (*end, CutText(eos, length)),
        cut=True,
    )
