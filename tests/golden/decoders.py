"""Recorded decoders of 2025 and 2026 as recipes of this library, and the quirks of their code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method, scheduled
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Score
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.parts.select import Threshold, TopK, by_rule
from dlmdecode.samplers.certainty import CertaintyDensity
from dlmdecode.samplers.entropy_bound import EntropyBound
from dlmdecode.samplers.factor import Factor
from dlmdecode.samplers.klass import ConfidentAndStable, KLHistory
from dlmdecode.samplers.pc_sampler import EarlierFirst, Frequencies, Informative


@dataclass(frozen=True)
class LinearPosition(Score):
    """PC-Sampler's first form: informativeness scaled to 0 … 1 over the block, and a straight line.

    Written positions take part in the scaling, with their token and the model's best probability.
    """

    reads_committed = True
    informative: Informative
    weight: float

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        token = torch.where(canvas.masked, canvas.proposal.token, canvas.tokens)
        share = self.informative.frequencies.of(token)
        score = (-confidence * (share + 1e-9).log()).clamp(max=self.informative.clip)
        low = score.masked_fill(~canvas.block, torch.inf).amin(1, keepdim=True)
        high = score.masked_fill(~canvas.block, -torch.inf).amax(1, keepdim=True)
        scaled = (score - low) / (high - low)
        length = (canvas.hi - canvas.lo)[:, None]
        line = (canvas.hi[:, None] - canvas.position) / length
        return (1 - self.weight) * scaled + self.weight * line


@method("pc-sampler")
def pc_sampler(case: Case, folder: Path) -> Setup:
    params, length = case["params"], case["params"]["gen_length"]
    frequencies = Frequencies.load(folder / case["extra"]["corpus"])
    informative = Informative(frequencies, params["alpha"])
    scores: tuple[Any, ...] = (informative, EarlierFirst(params["lambd"]))
    if "linear" in params["function"]:
        scores = (LinearPosition(informative, params["lambd"]),)
    return Setup(scheduled(params, length, params["block_length"], scores=scores), length)


@dataclass(frozen=True)
class Count:
    """The same number of tokens at every step."""

    number: int

    def __call__(self, canvas: Canvas) -> Tensor:
        return torch.full_like(canvas.lo, self.number)


def d2(case: Case, select: Any, *scores: Score, **more: Any) -> Setup:
    """A case of d²Cache's framework: blocks of one length, all positions computed."""
    params = case["params"]
    recipe = Sampler(select, FixedBlocks(params["block_length"]), scores=scores, **more)
    return Setup(recipe, params["gen_length"], lockstep=isinstance(case["prompt"][0], list))


@dataclass(frozen=True)
class FactorWithoutLast(Factor):
    """d²Cache's factor rule leaves the last position where all of them pass."""

    def __call__(self, canvas: Canvas) -> Tensor:
        where = super().__call__(canvas)
        all_pass = (where == canvas.open).all(1)
        few = by_rule(canvas, "topk", quota=(canvas.open.sum(1) - 1).clamp(min=0))
        return torch.where(all_pass[:, None], few, where)


@method("d2-parallel")
def d2_parallel(case: Case, folder: Path) -> Setup:
    params = case["params"]
    scores: list[Score] = [Margin()] if params["alg"] == "topk_margin" else []
    scores += [CertaintyDensity(params["sigma"])] if params["sigma"] is not None else []
    select: Any = TopK(Count(params["num_transfer_tokens"]))
    if params["threshold"] is not None:
        select = Threshold(params["threshold"])
    if params["factor"] is not None:
        select = FactorWithoutLast(params["factor"])
    return d2(case, select, *scores)


@method("d2-eb")
def d2_eb(case: Case, folder: Path) -> Setup:
    params = case["params"]
    scores = (NegativeEntropy(),) if params["alg"] == "entropy" else ()
    return d2(case, EntropyBound(params["gamma"]), *scores)


@dataclass(frozen=True)
class EndlessHistory(KLHistory):
    """d²Cache's KLASS does not forget at a block's end."""

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        return super().__call__(logits, replace(rows, lo=rows.start, hi=rows.stop), positions)


@method("d2-klass")
def d2_klass(case: Case, folder: Path) -> Setup:
    params = case["params"]
    history = EndlessHistory(params["kl_history_length"], reads_canvas=True)
    limits = params["threshold"], params["kl_threshold"]
    rule = ConfidentAndStable(history, TopK(Count(params["num_transfer_tokens"])), *limits)
    return d2(case, rule, processors=(history,))


@method("d2-pc")
def d2_pc(case: Case, folder: Path) -> Setup:
    params = case["params"]
    frequencies = Frequencies.load(folder / case["extra"]["corpus"])
    score = Informative(frequencies, params["clip_alpha"])
    return d2(case, TopK(Count(params["num_transfer_tokens"])), score)
