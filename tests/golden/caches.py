"""Recorded caches: their parameters, and parts for what their code does and the library does not.

See docs/golden.md for the reasons.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import quirks
import torch
from harness import Case, Setup
from methods import method, scheduled
from torch import Tensor

from dlmdecode.caches.delayed import DelayedCache
from dlmdecode.caches.features import FeatureCache
from dlmdecode.caches.sparse import SparseCache
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.blocks import FixedBlocks, WholeCanvas
from dlmdecode.parts.select import TopK
from dlmdecode.samplers.dream import ALGORITHMS
from dlmdecode.samplers.dream_grid import GridQuota


class IdleCalls:
    """Dream's time grid: steps that commit nothing, which the library leaves out, are calls of the
    cache, too, and count where it is refreshed every so many."""

    def __init__(self, leaf: Any, steps: int, eps: float):
        self.leaf, self.work, self.steps, self.step = leaf, leaf.work, steps, 0
        self.time = torch.linspace(1, eps, steps + 1)

    def idle(self, masks: int) -> bool:
        share = 1 - self.time[self.step + 1] / self.time[self.step]
        return self.step < self.steps - 1 and int(masks * share) == 0

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        while self.idle(int(rows.open.sum(1)[0] or rows.masked.sum(1)[0])):
            self.leaf(rows, wanted)
            self.step += 1
            rows = replace(rows, lo=wanted.lo, hi=wanted.hi, nfe=rows.nfe + 1)
        self.step += 1
        return self.leaf(rows, wanted)


class IdleInBlock(IdleCalls):
    """The same in each block, whose first call commits one token."""

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        if rows.block_full.all():
            self.step = 1
            return self.leaf(rows, wanted)
        return super().__call__(rows, wanted)


class TwiceInFull(DelayedCache):
    """dKV-Cache for LLaDA: a block's second forward is one over the whole canvas, too."""

    def due(self, rows: Canvas) -> Tensor:
        return super().due(rows) | (self.calls[rows.row] < 2)


class CacheableRows(DelayedCache):
    """dKV-Cache for Dream goes by the position that a state speaks for ("un"): it is kept once that
    is decided, though its own token may change. The last one speaks for none."""

    right = False  # "un_right": its own token is decided, too
    before: Tensor | None = None  # those that the call before kept

    def changed(self, rows: Canvas) -> Tensor:
        return torch.zeros_like(rows.masked)

    def chosen(self, rows: Canvas, wanted: Positions, seen: Tensor) -> Tensor:
        decided = ~rows.masked
        cacheable = decided.roll(-1, 1)
        cacheable = cacheable & decided if self.right else cacheable
        first = self.before is None
        cacheable[:, -1] = cacheable[:, -2] & (not first) if self.right else not first
        before = torch.zeros_like(cacheable) if self.before is None else self.before
        self.before = cacheable
        return ~before


def dream_grid(params: dict[str, Any]) -> Sampler:
    """Dream's own decoding, of which `IdleCalls` makes the steps that commit nothing."""
    return Sampler(
        select=TopK(GridQuota(params["steps"], params["eps"])),
        blocks=WholeCanvas(),
        scores=ALGORITHMS[params["alg"]],
    )


@method("dkv-cache")
def dkv_cache(case: Case, folder: Path) -> Setup:
    params = case["params"]
    if params["function"] == "generate":
        recipe = scheduled(params, params["gen_length"], params["block_length"])
        every = params["cache_reloading_step"]
        leaf = lambda model: TwiceInFull(model, every)  # noqa: E731
        return Setup(
            recipe,
            params["gen_length"],
            dtype=torch.float64,
            leaf=leaf,
            lockstep=isinstance(case["prompt"][0], list),
        )
    kept = "prompt" if params["cache_type"] == "prefill" else "decoded"
    every = params["cache_steps"] or None

    def dream(model: Denoiser) -> Any:
        policy = DelayedCache(model, every, kept)
        if kept == "decoded":
            policy = CacheableRows(model, every)
            policy.right = params["shift_type"] == "un_right"
        return IdleCalls(policy, params["steps"], params["eps"])

    return Setup(dream_grid(params), params["max_new_tokens"], leaf=dream)


@method("dllm-cache")
def dllm_cache(case: Case, folder: Path) -> Setup:
    params = case["params"]
    options = (params[f"{name}_interval_steps"] for name in ("prompt", "gen"))
    options = (*options, params["transfer_ratio"])
    if params["function"] == "generate":
        recipe = scheduled(params, params["gen_length"], params["block_length"])
        return Setup(recipe, params["gen_length"], leaf=lambda model: FeatureCache(model, *options))

    def dream(model: Denoiser) -> Any:
        return IdleCalls(FeatureCache(model, *options), params["steps"], params["eps"])

    return Setup(dream_grid(params), params["max_new_tokens"], leaf=dream)


@method("sparse-dllm")
def sparse_dllm(case: Case, folder: Path) -> Setup:
    params = case["params"]
    options = (params["keep_ratio"], params["kernel_size"])
    if params["function"] == "generate":
        recipe = scheduled(params, params["gen_length"], params["block_length"])
        return Setup(recipe, params["gen_length"], leaf=lambda model: SparseCache(model, *options))
    length, block = params["max_new_tokens"], params.get("block_length", 32)
    per_block, eps = params["steps"] // (length // block), params["eps"]

    def dream(model: Denoiser) -> Any:
        return IdleInBlock(SparseCache(model, *options), per_block, eps)

    rule = quirks.FirstTokenOnly(TopK(quirks.GridAfterFirst(per_block, eps)))
    scores = ALGORITHMS[params["alg"]]
    return Setup(Sampler(rule, FixedBlocks(block), scores=scores), length, leaf=dream)
