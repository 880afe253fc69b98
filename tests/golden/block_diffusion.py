"""Recorded runs of block-diffusion models beside SDAR's: their parameters, and parts for what their
code does and the library does not. The table in docs/golden.md lists these with the reasons.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup, prompts_of
from methods import method, sdar
from quirks import EntropySum, SavingCalls, ThresholdOrQuota
from torch import Tensor

from dlmdecode.caches import attention_mask, gather_states
from dlmdecode.caches.groups import join
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule, Opening, Revision, Selection
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.remasking import first
from dlmdecode.parts.select import EvenQuota


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


@dataclass(frozen=True)
class EndTogether(Opening):
    """The rows of Fast-dLLM v2's batch end at the same position."""

    stop: int

    def __call__(self, canvas: Canvas) -> None:
        canvas.truncate(torch.full_like(canvas.stop, self.stop))


@dataclass(frozen=True)
class FirstAlone(BlockSchedule):
    """Fast-dLLM v2's sub-blocks of `length`; the call that saves a block writes the first token of
    the next one, whatever its confidence."""

    block: int
    length: int

    def reach(self, canvas: Canvas) -> Tensor:
        begins = canvas.hi % self.block == 0
        return torch.where(begins, 1, self.length - canvas.hi % self.length)

    __call__ = reach


@dataclass(frozen=True)
class CutAtStop(Revision):
    """Fast-dLLM v2 cuts the text behind a stop id, as soon as no mask is left before it."""

    stop_id: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        at = first((canvas.tokens == self.stop_id) & canvas.text)
        open = (canvas.masked & (canvas.position < at[:, None])).any(1)
        canvas.truncate(torch.where(open, canvas.stop, at + 1))


class Prefill(SavingCalls):
    """Fast-dLLM v2: the prompt's whole blocks get a call of their own where it ends inside one."""

    def save(self, rows: Canvas) -> None:
        if (rows.hi % self.block != 0).all():
            super().save(rows)


class SubBlockCache(Prefill):
    """Fast-dLLM v2's block cache: a sub-block whose first token is written is computed alone,
    beside what the last call over the whole block left."""

    def __init__(self, model: Any, length: int):
        super().__init__(model)
        self.length = length  # of a sub-block

    def compute(
        self, rows: Canvas, wanted: Positions, kept: Tensor, final: Tensor
    ) -> tuple[Tensor, Positions]:
        lo = wanted.lo // self.length * self.length
        unwritten = rows.tokens.gather(1, lo[:, None])[:, 0] == rows.mask_id
        whole = rows.block_full | unwritten
        if whole.all():
            return super().compute(rows, wanted, kept, final)
        if not whole.any():
            return self.alone(rows, wanted, lo)
        groups = [index.nonzero()[:, 0] for index in (whole, ~whole)]
        parts = [
            self.compute(rows.take(index), wanted.take(index), kept[index], final[index])
            for index in groups
        ]
        return join(parts, torch.cat(groups).argsort())

    def alone(self, rows: Canvas, wanted: Positions, lo: Tensor) -> tuple[Tensor, Positions]:
        window, length = Span(lo, wanted.hi), int((lo // self.block + 1).max()) * self.block
        tokens = rows.tokens.gather(1, window.at)
        self.work.add(tokens)
        attend = attention_mask(self.model, rows, window.at, length)
        mix = self.store.mixing(rows, window.at, length)
        hidden = self.model.encode(tokens, window.at, attend, mix)
        wanted = wanted.within(lo + 1, wanted.hi)
        return gather_states(hidden, wanted.at - 1 - lo[:, None]), wanted


@method("fast-dllm-v2")
def fast_dllm_v2(case: Case, folder: Path) -> Setup:
    params, lengths = case["params"], [len(prompt) for prompt in prompts_of(case)]
    block, length = params["block_size"], params["small_block_size"]
    stop = (max(lengths) // block + params["max_new_tokens"] // block) * block + 1
    recipe = Sampler(
        openings=(EndTogether(stop),),
        select=ThresholdOrQuota(params["threshold"], EvenQuota()),
        blocks=FirstAlone(block, length),
        revisions=(CutAtStop(params["stop_token"]),),
    )

    def leaf(model: Any) -> Any:
        other = copy.copy(model)
        other.block_length = block
        return SubBlockCache(other, length) if params["use_block_cache"] else Prefill(other)

    return Setup(
        recipe,
        stop - min(lengths),
        leaf=leaf,
        lockstep=len(lengths) > 1,
        block_of=lambda rows: rows.hi,
        prefill=int(min(lengths) > block and min(lengths) % block != 0),
        cut=True,
    )
