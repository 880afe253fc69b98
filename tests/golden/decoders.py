"""Recorded decoders of 2025 and 2026 as recipes of this library, and the quirks of their code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from harness import Case, Setup
from methods import method, scheduled
from torch import Tensor

from dlmdecode.composition import sampler
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor, Revision, Score, Selection
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks, WholeCanvas
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.parts.select import Threshold, TopK, by_rule
from dlmdecode.samplers.certainty import CertaintyDensity
from dlmdecode.samplers.core import AskAgain, OldTokens
from dlmdecode.samplers.dawn import Independent
from dlmdecode.samplers.dawn_graph import DependencyGraph
from dlmdecode.samplers.entropy_bound import EntropyBound
from dlmdecode.samplers.factor import Factor
from dlmdecode.samplers.klass import ConfidentAndStable, KLHistory
from dlmdecode.samplers.pc_sampler import EarlierFirst, Frequencies, Informative
from dlmdecode.samplers.slowfast import CutBehind, Cycles, SureInStretch
from dlmdecode.samplers.vanilla import WithoutEos
from dlmdecode.settings import Settings


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


@dataclass(frozen=True)
class EosPenalty(Processor):
    """Saber's code can make an end less likely by a schedule of `steps`, which it does not keep."""

    amount: float
    steps: int
    eps: float

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        time = torch.linspace(1, self.eps, self.steps + 1)[rows.step]
        penalised = logits.clone()
        penalised[..., rows.eos_ids[0]] += self.amount * (1 - time + self.eps).log()[:, None]
        best = penalised.argmax(-1, keepdim=True)
        prob = logits.softmax(-1).gather(-1, best)[..., 0].double()
        rows.memory[self] = prob.gather(1, positions.column(rows.position))
        return penalised


@dataclass(frozen=True)
class WithoutPenalty(Revision):
    """What is re-masked goes by probabilities without the penalty."""

    penalty: EosPenalty

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        canvas.proposal.prob = canvas.memory[self.penalty]


@method("saber")
def saber(case: Case, folder: Path) -> Setup:
    params = case["params"]
    recipe = sampler("saber")
    if params["eos_penalty"]:
        penalty = EosPenalty(params["eos_penalty"], params["steps"], params["eps"])
        commits, backtrack = recipe.revisions
        revisions = (commits, WithoutPenalty(penalty), backtrack)
        recipe = replace(recipe, processors=(*recipe.processors, penalty), revisions=revisions)
    return Setup(recipe, params["max_new_tokens"])


@method("info-gain")
def info_gain(case: Case, folder: Path) -> Setup:
    params = case["params"]
    shape = {"block_length": params["block_size"], "max_new_tokens": params["max_new_tokens"]}
    recipe = sampler(
        "info_gain",
        candidates=params["candidate_number"],
        threshold=params["threshold"] or None,
        objective=params["variant"],
        spread=0.0,
        **shape,
    )
    return Setup(recipe, params["max_new_tokens"])


@dataclass(frozen=True, eq=False)
class ExploreToTheEnd(Revision):
    """SlowFast's exploration takes all its forwards, also where the block is full before."""

    forward: Any
    cycles: Cycles

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        steps = int(self.cycles.state(canvas)[2][0])
        if canvas.block_full.all() and steps:
            for _ in range(self.cycles.explore - steps):
                self.forward(replace(canvas, hi=canvas.lo), Span(canvas.lo, canvas.hi))


class DreamCycles(Cycles):
    """SlowFast's Dream code: estimates begin as zeros, their unbiased variance is compared, and a
    mean is rounded."""

    def fixed(self, estimates: Tensor, steps: Tensor) -> Tensor:
        known = estimates.clamp(min=0).double()
        stable = known.var(1) <= self.deviation
        mean = known.mean(1).round().long().clamp(min=1)
        return torch.where(stable, estimates[:, -1], mean.masked_fill(steps < self.explore, -1))


@dataclass(frozen=True)
class TwoThresholds(Selection):
    """One while it explores, one after."""

    slow: SureInStretch
    fast: SureInStretch

    def __call__(self, canvas: Canvas) -> Tensor:
        exploring = self.slow.cycles.state(canvas)[2] < self.slow.cycles.explore
        return torch.where(exploring[:, None], self.slow(canvas), self.fast(canvas))


def slowfast_dream(params: dict[str, Any]) -> Setup:
    cycles = DreamCycles(
        params["n_cycle_discovery_steps"],
        params["conf_threshold_cycle_len_pred"],
        params["stabilize_count"],
        params["cycle_len_variance_threshold"],
    )
    rule = TwoThresholds(
        SureInStretch(cycles, params["high_conf_for_parallel_decode_discovery"]),
        SureInStretch(cycles, params["high_conf_for_cycle_decode"]),
    )
    recipe = Sampler(rule, WholeCanvas(), revisions=(cycles,), evaluate=CutBehind(cycles))
    return Setup(recipe, params["max_new_tokens"])


@method("slowfast")
def slowfast(case: Case, folder: Path) -> Setup:
    params = case["params"]
    if case["model"].startswith("dream"):
        return slowfast_dream(params)
    length = params["gen_length"]
    cycles = Cycles(
        params["k_exploration_steps"],
        params["cycle_len_confidence_threshold"],
        params["cycle_length_stability_window"],
        params["cycle_length_stability_std_dev_threshold"],
    )
    recipe = Sampler(
        SureInStretch(cycles, params["high_confidence_threshold"]),
        FixedBlocks(params["block_length"]),
        revisions=(cycles,),
        evaluate=CutBehind(cycles),
    )
    return Setup(recipe, length, quirks=lambda forward: (ExploreToTheEnd(forward, cycles),))


@dataclass(frozen=True)
class BothAtOnce(Independent):
    """DAWN's code leaves out what depends on a position that is sure and induced at once.

    Nothing of the sort is needed of a position that is either, and almost nothing is left out.
    """

    def tied(self, edges: Tensor, high: Tensor, induced: Tensor) -> Tensor:
        if high is induced:  # two of the others
            return super().tied(edges, high, induced)
        return (edges & (high & induced)[:, None]).any(2)


@dataclass(frozen=True)
class OverwritesThePrompt(BothAtOnce):
    """DAWN's loop goes on when no candidate is left, picks index 0, and commits it."""

    exhausted: list[bool] = field(default_factory=list, compare=False)  # each row, in this step

    def apart(self, edges: Tensor, others: Tensor, sure: Tensor) -> Tensor:
        taken = super().apart(edges, others, sure)
        self.exhausted[:] = (taken != others).any(1).tolist()
        return taken


@dataclass(frozen=True)
class FirstToken(Revision):
    """The prompt's first token becomes what the model would write there."""

    rule: OverwritesThePrompt

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        if any(self.rule.exhausted):
            canvas.tokens[:, 0] = canvas.memory["first"]


@dataclass(frozen=True)
class GraphAndFirst(DependencyGraph):
    """The graph, and the best token at position 0."""

    def __call__(self, model: Any, settings: Settings) -> Any:
        forward = super().__call__(model, settings)
        read = forward.read

        def also(rows: Canvas, logits: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
            rows.memory["first"] = logits[:, 0].argmax(-1)
            return read(rows, logits, mean)

        forward.read = also
        return forward


@method("dawn")
@method("dream-dawn")
def dawn(case: Case, folder: Path) -> Setup:
    params = case["params"]
    is_dream = case["model"].startswith("dream")
    low = params["conf_threshold"] if is_dream else params["tau_low"]
    stops = params.get("stop_when_exhausted")
    rule: Any = (BothAtOnce if stops else OverwritesThePrompt)(0.9, params["tau_induce"], low)
    graph = GraphAndFirst(params["tau_sink"], params["tau_edge"], params["attention_from_layer"])
    revisions = () if stops else (FirstToken(rule),)
    blocks = FixedBlocks(params["block_length"])
    recipe = Sampler(rule, blocks, evaluate=graph, revisions=revisions)
    length = params["max_new_tokens" if is_dream else "gen_length"]
    return Setup(recipe, length, dtype=torch.float32 if is_dream else torch.float64)


@dataclass(frozen=True)
class SmallestMargin(AskAgain):
    """CORE's baseline: whatever the second look is least certain of, changed or not."""

    def worth(self, rows: Canvas, old: Tensor) -> Tensor:
        return -Margin()(rows.proposal.prob, rows)


@method("core")
def core(case: Case, folder: Path) -> Setup:
    params, length = case["params"], case["params"]["gen_length"]
    by_margin = params["remasking"] == "topk_margin" or params.get("base_masking") == "margin"
    processors: tuple[Any, ...] = (WithoutEos(),) if params.get("logits_eos_inf") else ()
    scores = (Margin(),) if by_margin else ()
    recipe = scheduled(params, length, params["block_length"], scores=scores)
    if params["remasking"] != "topk_margin":
        kind = SmallestMargin if params["remasking"] == "margin_remask" else AskAgain
        again = kind(
            recipe.select.quota,
            int(params.get("revise_every", 8)),
            int(params.get("candidate_m", 32)),
            params.get("remask_k", 1),
            joint=str(params.get("joint_reeval", 0)) == "1",
        )
        processors += (OldTokens(),)
        recipe = replace(recipe, verify=again)
    return Setup(replace(recipe, processors=processors), length)
