"""Recorded parameters, under the names their code uses, as recipes of this library."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import quirks
import torch
from harness import Case, Setup

from dlmdecode.composition import sampler
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import AlignedBlocks, FixedBlocks, WholeCanvas
from dlmdecode.parts.processors import TopKFilter, TopPFilter
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.parts.select import EvenQuota, Threshold, TopK
from dlmdecode.samplers.adablock import DelimiterBlocks
from dlmdecode.samplers.credit import TraceCredit
from dlmdecode.samplers.dream import ALGORITHMS
from dlmdecode.samplers.dream_grid import GridQuota
from dlmdecode.samplers.entropy_bound import EntropyBound
from dlmdecode.samplers.eoser import EosRejection
from dlmdecode.samplers.freedave import Lookahead
from dlmdecode.samplers.freedave_packed import DraftsInOneRow
from dlmdecode.samplers.hierarchy import RunPeaks
from dlmdecode.samplers.klass import ConfidentAndStable, KLHistory
from dlmdecode.samplers.learn2pd import LearnedAcceptance
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter
from dlmdecode.samplers.localleap import NearAnchor
from dlmdecode.samplers.prophet import AnswerSettled
from dlmdecode.samplers.prophet_constraints import Constraints
from dlmdecode.samplers.vanilla import WithoutEos
from dlmdecode.samplers.wino_shadow import Shadowed
from dlmdecode.settings import Settings

METHODS: dict[str, Callable[[Case, Path], Setup]] = {}
DELIBERATE: dict[str, tuple[tuple[Callable[[Case], bool], str], ...]] = {
    "freedave": (
        (
            lambda case: case["params"]["eager_acceptance_mode"],
            "eager acceptance reuses outdated predictions across blocks and is not lossless",
        ),
    ),
}


def method(name: str):
    def register(setup: Callable[[Case, Path], Setup]):
        METHODS[name] = setup
        return setup

    return register


def scheduled(params: dict[str, Any], length: int, block_length: int, **more: Any) -> Sampler:
    """LLaDA's fixed schedule."""
    num_blocks = length // block_length
    steps = params["steps"] // num_blocks * num_blocks
    return Sampler(select=TopK(EvenQuota(steps)), blocks=FixedBlocks(block_length), **more)


@method("llada-vanilla")
def llada_vanilla(case: Case, folder: Path) -> Setup:
    params, extra = case["params"], case["extra"]
    recipe = scheduled(params, params["gen_length"], params["block_length"])
    if params.get("logits_eos_inf"):
        recipe = recipe.merge(Sampler(processors=(WithoutEos(),)))
    if params.get("confidence_eos_eot_inf"):
        mass = quirks.EndTokenMass(tuple({extra["eos_id"], extra["eot_id"]}))
        scores = (quirks.RenormalisedConfidence(mass),)
        recipe = recipe.merge(Sampler(processors=(mass,), scores=scores))
    return Setup(recipe, params["gen_length"], cfg_scale=params["cfg_scale"])


@method("entropy-margin")
def entropy_margin(case: Case, folder: Path) -> Setup:
    params = case["params"]
    score = NegativeEntropy() if "entropy" in params["function"] else Margin()
    recipe = scheduled(params, params["gen_length"], params["block_length"], scores=(score,))
    return Setup(recipe, params["gen_length"])


@method("eb-sampler")
def eb_sampler(case: Case, folder: Path) -> Setup:
    params = case["params"]
    rule = EntropyBound(params["gamma"])
    recipe = Sampler(select=rule, scores=(NegativeEntropy(),), blocks=WholeCanvas())
    return Setup(recipe, params["gen_length"], cfg_scale=params["cfg_scale"])


@method("dream-vanilla")
def dream_vanilla(case: Case, folder: Path) -> Setup:
    params = case["params"]
    filters = [TopPFilter(params["top_p"])] if params["top_p"] is not None else []
    filters += [TopKFilter(params["top_k"])] if params["top_k"] is not None else []
    recipe = Sampler(
        select=quirks.UnorderedTies(GridQuota(params["steps"], params["eps"])),
        blocks=WholeCanvas(),
        processors=tuple(filters),
        scores=ALGORITHMS[params["alg"]],
    )
    steps = params["steps"]
    return Setup(recipe, params["max_new_tokens"], quirks=lambda f: (quirks.IdleSteps(f, steps),))


@method("fastdllm")
def fastdllm(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length = params["gen_length"]
    recipe = scheduled(params, length, params["block_length"])
    if params["threshold"] is not None:
        recipe = replace(recipe, select=Threshold(params["threshold"]))
    cached = {"generate_with_prefix_cache": "prefix", "generate_with_dual_cache": "dual"}
    cache = cached.get(params["function"], "none")
    setup = Setup(recipe, length, cache, dtype=torch.float64)
    if cache != "none":
        setup.quirks = lambda forward: (quirks.ForwardAfterFullBlock(forward),)
    return setup


@method("fastdllm-factor")
def fastdllm_factor(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length = params["gen_length"]
    recipe = scheduled(params, length, params["block_length"])
    if params["factor"] is not None:
        recipe = replace(recipe, select=quirks.FactorWithLast(params["factor"]))
    elif params["threshold"] is not None:
        recipe = replace(recipe, select=Threshold(params["threshold"]))
    cache = "none" if not params["use_cache"] else "dual" if params["dual_cache"] else "prefix"
    setup = Setup(recipe, length, cache, dtype=torch.float64)
    if params["early_stop"]:
        after_refresh = cache == "none"
        setup.quirks = lambda forward: (quirks.OverwriteAfterEos(after_refresh),)
    return setup


@method("localleap")
def localleap(case: Case, folder: Path) -> Setup:
    params = case["params"]
    threshold, relaxed = params["threshold"], params["relaxed_threshold"]
    recipe = scheduled(params, params["gen_length"], params["block_length"])
    if threshold is not None:
        rule = Threshold(threshold)
        if relaxed is not None:
            rule = NearAnchor(threshold, relaxed, params["radius"])
        recipe = replace(recipe, select=rule)
    setup = Setup(recipe, params["gen_length"], dtype=torch.float64)
    if params["early_stop"]:
        setup.quirks = lambda forward: (quirks.EndAfterBlockWithEos(),)
    return setup


@method("prophet")
def prophet(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length, block_length = params["gen_length"], params["block_length"]
    recipe = scheduled(params, length, block_length)
    settled = None
    if params["answer_start_pos"] is not None:
        gaps = params["early_exit_thresholds"] or {}
        answer = (params["answer_start_pos"] - len(case["prompt"]), 5)
        settled = AnswerSettled(
            **gaps, answer=answer, steps=params["steps"], block_length=block_length
        )
        recipe = recipe.merge(Sampler(stops=(settled,)))
    fixed = tuple((int(offset), token) for offset, token in (params["constraints"] or {}).items())
    if fixed:
        recipe = recipe.merge(Sampler(openings=(Constraints(fixed),)))
    per_block = params["steps"] // (length // block_length)
    setup = Setup(recipe, length, cfg_scale=params["cfg_scale"])
    setup.quirks = lambda forward: (quirks.IdleProphet(forward, settled, per_block),)
    return setup


def adablock_recipe(params: dict[str, Any], length: int) -> Sampler:
    blocks = DelimiterBlocks(
        tuple(params["delimiter_ids"]), params["delimiter_threshold"], 0.25, length
    )
    threshold = params["threshold"] if params["threshold"] < 1 else math.inf
    select = TopK(EvenQuota()) if math.isinf(threshold) else Threshold(threshold)
    return Sampler(select=select, blocks=blocks)


@method("adablock")
def adablock(case: Case, folder: Path) -> Setup:
    params = case["params"]
    recipe = adablock_recipe(params, params["init_block_length"])
    kind = params["function"]
    cache = "dual" if "dual" in kind else "prefix" if "prefix" in kind else "none"
    return Setup(recipe, params["gen_length"], cache, dtype=torch.float64)


@method("dream-adablock")
def dream_adablock(case: Case, folder: Path) -> Setup:
    params = case["params"]
    recipe = adablock_recipe(params, params["block_length"])
    if "cache" not in params["function"]:
        return Setup(recipe, params["max_new_tokens"])
    recipe = replace(recipe, select=quirks.FirstTokenOnly(recipe.select))
    return Setup(recipe, params["max_new_tokens"], "dual" if params["dual_cache"] else "prefix")


@method("dream-fastdllm")
def dream_fastdllm(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length = params["max_new_tokens"]
    if params["file"] == "generation_utils.py":
        rule = quirks.CarriedCandidates(params["steps"], params["threshold"])
        return Setup(Sampler(select=rule, blocks=WholeCanvas()), length)
    block_length = params["block_length"]
    blocks, cache = FixedBlocks(block_length), "dual" if params["dual_cache"] else "prefix"
    if params["alg"] == "confidence_threshold":
        rule = quirks.FirstTokenOnly(Threshold(params["threshold"]))
        return Setup(Sampler(select=rule, blocks=blocks), length, cache)
    per_block = params["steps"] // (length // block_length)
    rule = quirks.FirstTokenOnly(TopK(quirks.GridAfterFirst(per_block, params.get("eps", 1e-3))))
    recipe = Sampler(select=rule, blocks=blocks, scores=ALGORITHMS[params["alg"]])
    idle = lambda forward: (quirks.IdleSteps(forward, per_block),)  # noqa: E731
    return Setup(recipe, length, cache, quirks=idle)


@method("credit")
def credit(case: Case, folder: Path) -> Setup:
    params = case["params"]
    estimate = TraceCredit(params["credit_alpha"], params["decay_beta"], params["boost_gamma"])
    recipe = Sampler(
        select=Threshold(params["threshold"]),
        blocks=FixedBlocks(params["block_length"]),
        estimate=estimate,
    )
    dtype = torch.float64 if params["use_float64"] else torch.float32
    return Setup(recipe, params["gen_length"], dtype=dtype, lockstep=True)


@method("dinfer-decoders")
def dinfer_decoders(case: Case, folder: Path) -> Setup:
    params = case["params"]

    if params["decoder"] == "HierarchyDecoder":
        rule: Any = RunPeaks(params["threshold"], params["low_threshold"])
    else:
        rule = Threshold(params["threshold"])
    recipe = Sampler(select=rule, blocks=FixedBlocks(params["block_length"]))
    dtype = torch.float64 if params.get("use_float64") else torch.float32
    return Setup(recipe, params["gen_length"], dtype=dtype)


def freedave_static(case: Case) -> Setup:
    params = case["params"]
    length, block_length = params["max_gen_length"], params["block_length"]
    threshold = params["confidence_threshold"]
    rule: Any = TopK(EvenQuota()) if threshold is None else Threshold(threshold)
    if case["model"].startswith("dream"):
        rule = quirks.FirstTokenOnly(rule)
    scores = (quirks.Leftmost(),) if params["alg_temp"] == -1 else ()
    recipe = Sampler(select=rule, blocks=FixedBlocks(block_length), scores=scores)
    return Setup(recipe, length, "dual" if params["dual_cache"] else "prefix", lockstep=True)


@method("freedave-baseline")
def freedave_baseline(case: Case, folder: Path) -> Setup:
    return freedave_static(case)


@method("freedave")
def freedave(case: Case, folder: Path) -> Setup:
    params, setup = case["params"], replace(freedave_static(case), lockstep=False)
    packed = DraftsInOneRow() if params["draft_mode"] == "tree_attention" else None
    verify = Lookahead(params["draft_steps"])
    if params["confidence_threshold"] is not None:
        verify = quirks.WatchedLookahead(params["draft_steps"])
        setup.quirks = lambda forward: (quirks.VerifyFullCommit(forward, verify),)
    drafts = Sampler(verify=verify, evaluate=packed)
    return replace(setup, sampler=setup.sampler.merge(drafts))


@method("learn2pd")
def learn2pd(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length, block_length, kind = params["gen_length"], params["block_length"], params["function"]
    recipe = scheduled(params, length, block_length)
    cache = "dual" if "dual" in kind else "prefix" if "prefix" in kind else "none"
    rule = None
    if kind != "generate_predict_eot":
        weights = AcceptanceFilter.load(folder / params["filter"])
        rule = LearnedAcceptance(weights, recipe.select, params["accept_thres"])
        recipe = replace(recipe, select=rule)
    setup = Setup(recipe, length, cache, cut=True)
    setup.dtype = torch.float32 if cache == "none" else torch.float64
    if cache == "dual":
        setup.leaf = lambda model: quirks.StaleTail(model, dual=True)
    if kind != "generate_learn2parallel":
        anywhere = cache == "none"
        setup.quirks = lambda forward: (quirks.CutAtPredictedEos(anywhere, rule),)
    return setup


@method("eoser-ass")
def eoser_ass(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length, kind = params["gen_length"], params["function"]
    if kind.startswith(("ass", "eoser_ass")):
        bounds = {}
        if kind == "eoser_ass_generate":
            bounds = {"gamma_min": params["eos_min_gamma"], "gamma_max": params["eos_max_gamma"]}
        recipe = sampler("ass", num_blocks=params["block_num"], **bounds)
        return Setup(recipe, length, cfg_scale=params["cfg_scale"])
    block_length = (
        params["block_length"] if "block_length" in params else length // params["block_num"]
    )
    recipe = scheduled(params, length, block_length)
    if kind == "eoser_generate":
        low, high, steps = params["eos_min_gamma"], params["eos_max_gamma"], params["steps"]
        whole = block_length == length
        score: Any = EosRejection(low, high, steps)
        if not whole:
            score = quirks.BlockwiseEosRejection(low, high, steps)
        recipe = recipe.merge(Sampler(scores=(score,)))
    return Setup(recipe, length, cfg_scale=params["cfg_scale"])


@method("klass")
def klass(case: Case, folder: Path) -> Setup:
    params = case["params"]
    if case["model"].startswith("dream"):
        length = params["max_new_tokens"]
        history = KLHistory(params["kl_history_length"], reads_canvas=True)
        rule: Any = ConfidentAndStable(
            history, TopK(EvenQuota()), params["conf_threshold"], params["kl_threshold"]
        )
        if params["unmask_strategy"] != "all":
            rule = quirks.OneReady(rule, params["unmask_strategy"])
        recipe = Sampler(select=rule, blocks=WholeCanvas(), processors=(history,))
        return Setup(recipe, length)
    length, block_length = params["gen_length"], params["block_length"]
    recipe = scheduled(params, length, block_length)
    if params["alg"] != "klass":
        scores = (Margin(),) if params["alg"] == "topk_margin" else ()
        return Setup(replace(recipe, scores=scores), length, dtype=torch.float64)
    history = KLHistory(params["kl_history_length"], reads_canvas=True)
    rule = ConfidentAndStable(
        history, recipe.select, params["conf_threshold"], params["kl_threshold"]
    )
    if params["unmask_strategy"] != "all":
        rule = quirks.OneReady(rule, params["unmask_strategy"])
    recipe = replace(recipe, select=rule, processors=(history,))
    return Setup(recipe, length, dtype=torch.float64)


@method("wino")
def wino(case: Case, folder: Path) -> Setup:
    params = case["params"]
    limits = {"threshold": params["threshold"], "threshold_back": params["threshold_back"]}
    recipe = sampler("wino", block_length=params["block_length"], **limits)
    leaf = lambda model: Shadowed()(model, Settings())  # noqa: E731
    return Setup(recipe, params["gen_length"], leaf=leaf, dtype=torch.float64)


@method("sdar")
def sdar(case: Case, folder: Path) -> Setup:
    params = case["params"]
    block, ids = params["block_length"], params["stopping_criteria_idx"]
    num_blocks = -(-(len(case["prompt"]) + params["gen_length"]) // block)
    quota = quirks.BlockQuota(block, params["denoising_steps"])
    rules = {
        "low_confidence_static": TopK(quota),
        "sequential": TopK(quota),
        "low_confidence_dynamic": quirks.ThresholdOrQuota(params["confidence_threshold"], quota),
        "entropy_bounded": quirks.EntropySum(params["eb_threshold"]),
    }
    rule = params["remasking_strategy"]
    scores = (quirks.Leftmost(),) if rule == "sequential" else ()
    recipe = Sampler(select=rules[rule], blocks=AlignedBlocks(block), scores=scores)

    def leaf(model: Any) -> Any:
        other = copy.copy(model)
        other.block_length = block
        return quirks.SavingCalls(other)

    def more(forward: Any) -> tuple[Any, ...]:
        end = (quirks.EndWithBlock(tuple(ids)),) if ids else ()
        return (*end, quirks.SaveLastBlock(forward))

    cut = params["function"] == "postprocess_loop"
    length = num_blocks * block - len(case["prompt"])
    return Setup(recipe, length, leaf=leaf, quirks=more, cut=cut)


@method("illada")
def illada(case: Case, folder: Path) -> Setup:
    params, more = case["params"], ()
    length, block_length = params["gen_length"], params["block_length"]
    appended = params["function"] == "var_generate"
    steps = params["steps"] * (length // block_length if appended else 1)
    if ids := params.get("end_think_token_ids"):
        amount, power = params["end_think_logit_boost"], params.get("end_think_boost_power", 2.0)
        more = (quirks.EndThinkBoost(tuple(ids), amount, power, length),)
    recipe = scheduled({"steps": steps}, length, block_length, processors=more)
    setup = Setup(recipe, length, cfg_scale=params.get("cfg_scale", 0.0))
    if appended:
        end = (quirks.EndWithBlock(tuple(params.get("stop_tokens") or ())),)
        setup = replace(setup, leaf=quirks.NothingBehind, quirks=lambda forward: end, cut=True)
    return setup


@method("llada-moe")
def llada_moe(case: Case, folder: Path) -> Setup:
    params = case["params"]
    length = params["gen_length"]
    recipe = scheduled(params, length, params["block_length"])
    if params["file"] == "llada":
        return Setup(recipe, length, cfg_scale=params.get("cfg_scale", 0.0))
    if params["threshold"] is not None:
        recipe = replace(recipe, select=Threshold(params["threshold"]))
    return Setup(recipe, length, dtype=torch.float64)
