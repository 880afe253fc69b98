"""Recorded runs whose model sees a part of the canvas, or whose window slides: their parameters,
and parts for what their code does and the library does not. See docs/golden.md for the reasons.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import quirks
import torch
from harness import Case, Setup
from methods import dream_fastdllm, method, scheduled
from torch import Tensor

from dlmdecode.caches import gather_states, visible
from dlmdecode.caches.dcd import DelayedWindow
from dlmdecode.caches.dsb import DelayedSpan
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor, Revision, Selection
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks, MaskWindow
from dlmdecode.parts.remasking import first
from dlmdecode.parts.scores import NegativeEntropy
from dlmdecode.parts.select import Threshold, TopK
from dlmdecode.samplers.dsb import SlidingBlock
from dlmdecode.samplers.streaming import FallingThreshold

ENDS = "ends"  # memory: where each row's first EOS stands, (B,) int64


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


@dataclass(frozen=True)
class OneSchedule:
    """DSB without a threshold: the masks of the whole text shared out among the steps; under the
    cache every step has the share of the first one."""

    steps: int
    first: bool

    def __call__(self, canvas: Canvas) -> Tensor:
        length = canvas.stop - canvas.start
        step = torch.zeros_like(canvas.step) if self.first else canvas.step
        return length // self.steps + (step < length % self.steps).long()


@dataclass(frozen=True)
class FirstAtRefresh(Selection):
    """DSB for Dream: a call over the whole canvas writes the window's first token only, since it
    has no other use for it; `select` where the cache recomputes."""

    select: Any
    refresh: int

    def __call__(self, canvas: Canvas) -> Tensor:
        written = (canvas.text & ~canvas.masked).sum(1)
        before = canvas.memory.get(self, torch.full_like(written, -self.refresh))
        full = written - before >= self.refresh
        canvas.memory[self] = torch.where(full, written, before)
        alone = canvas.position == canvas.lo[:, None]
        return torch.where(full[:, None], alone, self.select(canvas))


@dataclass(frozen=True)
class OpenBehind(SlidingBlock):
    """DSB's suffix window: masks behind the block are written, too, where the cache recomputes; no
    further behind it than the slice begins, for an index into the canvas is used in the slice."""

    refresh: int = 16
    before: int = 24
    behind: int = 0

    def reach(self, canvas: Canvas) -> Tensor:
        written = (canvas.text & ~canvas.masked).sum(1)
        at_refresh = canvas.memory.get(self, torch.full_like(written, -self.refresh))
        full = written - at_refresh >= self.refresh
        canvas.memory[self] = torch.where(full, written, at_refresh)
        was = canvas.memory.get((self, "lo"), canvas.lo)
        canvas.memory[self, "lo"] = canvas.lo
        begins = torch.minimum(was, canvas.lo - self.before).clamp(min=0)
        return super().reach(canvas) + begins.clamp(max=self.behind).masked_fill(full, 0)

    __call__ = reach


class BehindToo(DelayedSpan):
    """The span that goes with `OpenBehind`, whose block ends somewhere in the suffix window."""

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        lo, hi = super().ends(rows, before)
        return lo, hi - lo.clamp(max=self.behind)


class OwnRow(DelayedSpan):
    """DSB for Dream shifts inside the slice: a slice that begins with the block has no logits for
    its first position but those of the position itself."""

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window = self.window(rows, wanted)
        hidden = self.encode(rows, window, self.query(window))
        wanted = wanted.within(window.lo, window.hi)
        column = window.column(wanted.at)
        return gather_states(hidden, column.where(column > 0, 1)), wanted


def sliding(case: Case, rule: Any, dtype: torch.dtype) -> Setup:
    """DSB's window, and its cache where the recorded function has one."""
    params = case["params"]
    block, longest = params["block_length"], params.get("max_block_length")
    longest = None if longest == -1 else longest
    before, behind = params.get("prefix_window", 24), params.get("suffix_window", 0)
    length = params.get("gen_length", params.get("max_new_tokens"))
    cached = "cache" in params["function"]
    blocks = SlidingBlock(block, longest)
    policy = OwnRow if case["model"].startswith("dream") else DelayedSpan
    if behind:
        blocks, policy = OpenBehind(block, longest, block, before, behind), BehindToo
    leaf = (lambda model: policy(model, before, behind, block)) if cached else None
    return Setup(Sampler(select=rule, blocks=blocks), length, dtype=dtype, leaf=leaf)


@method("dsb")
def dsb(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rule: Any = TopK(OneSchedule(params["steps"], "cache" in params["function"]))
    if params.get("factor") is not None:
        rule = quirks.FactorWithLast(params["factor"])
    elif params["threshold"] is not None:
        rule = Threshold(params["threshold"])
    return sliding(case, rule, torch.float64)


@method("dream-dsb")
def dream_dsb(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rule: Any = Threshold(params["threshold"])
    if "cache" in params["function"]:
        rule = FirstAtRefresh(rule, params["block_length"])
    return sliding(case, rule, torch.float32)


@dataclass(frozen=True)
class MaskNever(Processor):
    """DCD leaves the mask token out of the softmax."""

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        return logits.index_fill(-1, torch.tensor([rows.mask_id]), -torch.inf)


@dataclass(frozen=True)
class FixedQuota:
    """The same number of tokens in every step."""

    number: int

    def __call__(self, canvas: Canvas) -> Tensor:
        return torch.full_like(canvas.lo, self.number)


@dataclass(frozen=True)
class PadAtOnce(Revision):
    """DCD ends a row at the first EOS that a step writes: what follows becomes padding, written or
    not, while masks before it are still open."""

    pad_id: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        before = canvas.memory.get(ENDS, canvas.stop)
        ends = torch.minimum(before, first(committed & canvas.is_eos(canvas.tokens)))
        canvas.memory[ENDS] = ends
        beyond = Span(ends + 1, before).contains(canvas.position) & (ends < before)[:, None]
        canvas.tokens = canvas.tokens.masked_fill(beyond, self.pad_id)


@dataclass(frozen=True)
class UpToEos(MaskWindow):
    """DCD's window ends before the row's EOS, and the rows of a batch have one: it grows by as many
    masks as the row with the most of them lacks."""

    def reach(self, canvas: Canvas) -> Tensor:
        lo = canvas.lo.min().expand_as(canvas.lo)
        ends = canvas.memory.get(ENDS, canvas.stop)
        hi = canvas.memory.get(self, canvas.start)
        masks = (canvas.masked & (canvas.position < hi[:, None])).sum(1).max()
        hi = (hi + self.masks - masks).minimum(lo + self.longest).minimum(ends.max())
        canvas.memory[self] = hi
        return hi - canvas.lo

    __call__ = reach


class SharedWindow(DelayedWindow):
    """DCD's rows are refreshed together, when they wrote enough on average; those that are done
    count, too. Where logits are shifted the slice begins one position earlier, whose keys and
    values are replaced, and ends `lookahead` later."""

    lookahead = 1

    def due(self, rows: Canvas) -> list[bool]:
        if rows.block_full.all() or (self.written > rows.tokens.shape[1]).all():
            return [True] * len(rows)
        now = torch.full_like(self.written, int(rows.stop[0] - rows.start[0]))
        now[rows.row] = self.count(rows)
        since = (now - self.written).double().mean()
        return [bool(since >= self.every)] * len(rows)

    def refresh(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.written[:] = int(rows.stop[0] - rows.start[0])
        return super().refresh(rows, wanted)

    def ends(self, rows: Canvas, before: Tensor) -> tuple[Tensor, Tensor]:
        shared = replace(rows, lo=rows.lo.min().expand_as(rows.lo))
        return super().ends(shared, before.min().expand_as(before))

    def recompute(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        window, shift = self.window(rows, wanted), self.model.shift
        ahead = self.lookahead if shift else 0
        piece = Span(window.lo - shift, window.hi - shift + ahead)
        plain = copy.copy(self)
        plain.model = copy.copy(self.model)
        plain.model.shift = 0
        hidden = plain.encode(rows, piece, piece.at)
        wanted = wanted.within(window.lo, window.hi)
        return gather_states(hidden, wanted.at - shift - piece.lo[:, None]), wanted


@dataclass(frozen=True)
class EosWithBlock(Revision):
    """DCD's static blocks: one with an EOS ends the text there, whatever stands behind it."""

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        eos = first(canvas.is_eos(canvas.tokens) & canvas.block)
        beyond = (canvas.position > eos[:, None]) & canvas.text & canvas.block_full[:, None]
        canvas.tokens = canvas.tokens.masked_fill(beyond, canvas.eos_ids[0])


@method("dcd")
def dcd(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rules = {
        "threshold": Threshold(params["decode_param"]),
        "entropy_threshold": Threshold(params["decode_param"]),
        "fixed": TopK(FixedQuota(int(params["decode_param"]))),
    }
    algorithm, cache = params["decode_algo"], params["cache_type"]
    recipe = Sampler(
        select=rules[algorithm],
        processors=(MaskNever(),),
        scores=(NegativeEntropy(),) if algorithm == "entropy_threshold" else (),
    )
    _, _, delay = cache.partition("-delay")

    def leaf(model: Any) -> Any:
        every, kept = params["refresh_count"], cache.split("-")[0]
        policy = SharedWindow(model, int(delay) if delay else None, kept, every)
        policy.lookahead = params.get("lookahead", 0)
        return policy

    blocks: Any = UpToEos(params["initial_window_length"], params["max_window_length"])
    end: Any = PadAtOnce(params["pad_id"])
    if params["window_type"] == "static":
        blocks, end = FixedBlocks(params["block_size"]), EosWithBlock()
    return Setup(
        replace(recipe, blocks=blocks),
        params["generate_length"],
        leaf=None if cache == "none" else leaf,
        quirks=lambda forward: (end,),
    )
