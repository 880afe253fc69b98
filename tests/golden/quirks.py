"""What the recorded code does and the library deliberately does not, as parts of our loop.

Each part reproduces one peculiarity, so that a recorded case still runs on the library's own loop
and rules. The table in docs/golden.md lists them with the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.caches import BlockCache, CommittedCache, Recompute
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Processor, Revision, Score, Selection
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.parts.remasking import first
from dlmdecode.parts.scores import EosFactor
from dlmdecode.parts.select import by_rule
from dlmdecode.samplers.freedave import ConfidentLookahead


def surest_first(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Open positions by falling confidence: values (B, L), −inf behind the open ones, and order."""
    ranked = canvas.confidence.masked_fill(~canvas.open, -torch.inf)
    return ranked.sort(dim=1, descending=True, stable=True)


@dataclass(frozen=True, eq=False)
class ForwardAfterFullBlock(Revision):
    """Fast-dLLM's cached loops: completion is checked after a forward, so a block that its first
    forward filled costs another one."""

    forward: Any

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        done = canvas.block_full & (canvas.block_step == 1)
        if done.any():
            self.forward.recompute(canvas, Span(canvas.lo, canvas.hi))


@dataclass(frozen=True, eq=False)
class IdleSteps(Revision):
    """A fixed number of forwards per block: those left when the block is full do nothing."""

    forward: Any
    steps: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        if canvas.block_full.all():
            for _ in range(self.steps - int(canvas.block_step.max())):
                self.forward(replace(canvas, hi=canvas.lo), Span(canvas.lo, canvas.hi))


@dataclass(frozen=True, eq=False)
class IdleProphet(Revision):
    """Prophet looks at the gap in idle forwards too (blocks shortened by constraints)."""

    forward: Any
    settled: Any
    steps: int

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        if not canvas.block_full.all() or self.fires(canvas, canvas.block_step - 1):
            return  # the block goes on, or the exit has been taken
        while int(canvas.block_step.max()) < self.steps:
            logits, span = self.forward(canvas, Span(canvas.start, canvas.stop))
            need = canvas.text.gather(1, span.at)
            canvas.proposal.put(span, need, ops.propose(logits.flatten(0, 1)))
            canvas.fresh = span
            if self.fires(canvas, canvas.block_step):
                canvas.commit(canvas.masked)
                return
            canvas.block_step = canvas.block_step + 1

    def fires(self, canvas: Canvas, block_step: Tensor) -> bool:
        now = replace(canvas, block_step=block_step)
        return self.settled is not None and bool(self.settled(now).all())


@dataclass(frozen=True)
class UnorderedTies(Selection):
    """The best positions by torch.topk on float32 confidences, whose order of ties is its own.

    The library ranks by lowest position, on probabilities that float32 would round to equal ones.
    """

    quota: Any

    def __call__(self, canvas: Canvas) -> Tensor:
        ranked = canvas.confidence.float().masked_fill(~canvas.open, -torch.inf)
        where = torch.zeros_like(canvas.open)
        for row, count in enumerate(self.quota(canvas).tolist()):
            where[row, ranked[row].topk(count).indices] = True
        return where


@dataclass(frozen=True)
class FirstTokenOnly(Selection):
    """Dream under a cache: a block's refresh forward commits the block's first token, whatever its
    confidence, since a block-only forward has no logits for it."""

    select: Any

    def __call__(self, canvas: Canvas) -> Tensor:
        opening = (canvas.block_step == 0)[:, None]
        return torch.where(opening, canvas.position == canvas.lo[:, None], self.select(canvas))


@dataclass(frozen=True)
class FactorWithLast(Selection):
    """Fast-dLLM's factor rule commits the last open position even where it fails the test."""

    factor: float

    def __call__(self, canvas: Canvas) -> Tensor:
        ranked, _ = surest_first(canvas)
        n = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
        passes = (ranked >= 1 - self.factor / (n + 1)) | (n == 1)
        count = passes.long().cumprod(1).sum(1)
        open = canvas.open.sum(1)
        count = torch.where(count >= open - 1, open, count)
        return by_rule(canvas, "topk", quota=count)


@dataclass(frozen=True)
class OverwriteAfterEos(Revision):
    """Everything after the first EOS becomes EOS, masks before it or not, and decoding ends with
    the block. `after_refresh` false: not at a block's first forward."""

    after_refresh: bool

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        eos = first(canvas.is_eos(canvas.tokens) & canvas.text)
        ends = canvas.block_full & (eos < canvas.tokens.shape[1])
        now = ends | (canvas.block_step > 1) | self.after_refresh
        beyond = (canvas.position > eos[:, None]) & canvas.text & now[:, None]
        canvas.tokens = canvas.tokens.masked_fill(beyond, canvas.eos_ids[0])


@dataclass(frozen=True)
class EndAfterBlockWithEos(Revision):
    """LocalLeap's early stop: a finished block with an EOS anywhere ends the text behind it."""

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        eos = (canvas.is_eos(canvas.tokens) & canvas.block).any(1) & canvas.block_full
        beyond = (canvas.position >= canvas.hi[:, None]) & canvas.text & eos[:, None]
        canvas.tokens = canvas.tokens.masked_fill(beyond, canvas.eos_ids[0])


@dataclass(frozen=True)
class EndTokenMass(Processor):
    """Remembers the probability of some ids at every position, for `RenormalisedConfidence`."""

    ids: tuple[int, ...]

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        mass = logits.float().softmax(-1)[..., list(self.ids)].sum(-1)
        full = torch.zeros(rows.tokens.shape)
        rows.memory[self] = full.scatter(1, positions.at, mass)
        return logits


@dataclass(frozen=True)
class RenormalisedConfidence(Score):
    """LLaDA's confidence_eos_eot_inf as released: both ids leave the softmax after the argmax."""

    mass: EndTokenMass

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        rest = confidence / (1 - canvas.memory[self.mass].double())
        ends = torch.isin(canvas.proposal.token, torch.tensor(self.mass.ids))
        return rest.masked_fill(ends, 0)


@dataclass(frozen=True)
class GridAfterFirst:
    """Dream's time grid in a block whose first forward commits one token (`steps` a block)."""

    steps: int
    eps: float = 1e-3

    def __call__(self, canvas: Canvas) -> Tensor:
        time = torch.linspace(1, self.eps, self.steps + 1)
        masks, quotas = int(canvas.block_masks[0]) - 1, [1]
        for i in range(1, self.steps):
            share = 1 - time[i + 1] / time[i]
            count = masks if i == self.steps - 1 else int(masks * share)
            masks -= count
            quotas += [count] if count else []
        step = int(canvas.block_step[0])
        return torch.tensor([quotas[step] if step < len(quotas) else 0])


@dataclass(frozen=True)
class CarriedCandidates(Selection):
    """Fast-dLLM's uncached Dream loop: masks // steps candidates per step and those left over; the
    best one is committed, the others if sure enough."""

    steps: int
    threshold: float

    def __call__(self, canvas: Canvas) -> Tensor:
        total = canvas.block_masks
        offered = (total // self.steps) * torch.clamp(canvas.block_step + 1, max=self.steps)
        candidates = offered - (total - canvas.open.sum(1))
        ranked, order = surest_first(canvas)
        n = torch.arange(ranked.shape[1])
        sure = (n < candidates[:, None]) & (ranked >= self.threshold)
        return torch.zeros_like(sure).scatter(1, order, sure | (n == 0))


@dataclass(frozen=True)
class Leftmost(Score):
    """FreeDave's alg_temp = −1: positions in reading order."""

    replaces = True
    signed = True

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        return -canvas.position.double()


@dataclass(frozen=True)
class BlockwiseEosRejection(EosFactor):
    """EOSER's released code restarts the step index with each block but divides by all steps."""

    steps: int

    def progress(self, canvas: Canvas) -> Tensor:
        return canvas.block_step.double() / max(self.steps - 1, 1)


@dataclass(frozen=True)
class OneReady(Selection):
    """KLASS's unmask strategies that commit a single ready position."""

    rule: Any
    by: str  # "max_conf" or "min_kl"

    def __call__(self, canvas: Canvas) -> Tensor:
        rule = self.rule
        stable = rule.history.largest(canvas) < rule.kl_threshold
        ready = canvas.open & stable & (canvas.confidence > rule.threshold)
        last = canvas.memory[rule.history, "moved"][..., -1]
        column = (canvas.memory[rule.history, "number"] - 1).clamp(min=0)
        rank = canvas.confidence if self.by == "max_conf" else -last.gather(1, column).double()
        best = rank.masked_fill(~ready, -torch.inf).argmax(1, keepdim=True)
        one = torch.zeros_like(ready).scatter(1, best, True) & ready
        return torch.where(ready.any(1, keepdim=True), one, rule.fallback(canvas))


@dataclass(frozen=True, eq=False)
class CutAtPredictedEos(Revision):
    """Learn2PD's end-of-text prediction as released: any EOS proposal at a masked position cuts the
    text, the first one that the filter accepts, or else the most confident one."""

    reads_canvas: bool
    accepts: Any = None  # the LearnedAcceptance whose filter decides, if any

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        before = canvas.masked | committed
        ends = before & canvas.is_eos(canvas.proposal.token)
        if not self.reads_canvas:
            ends = ends & canvas.block
        most_confident = canvas.proposal.prob.masked_fill(~ends, -1).argmax(1)
        at = torch.where(ends.any(1), most_confident, canvas.tokens.shape[1])
        if self.accepts is not None:
            chosen = first(ends & self.accepts.accepted(canvas))
            at = torch.where(chosen < canvas.tokens.shape[1], chosen, at)
        canvas.truncate(torch.where(at < canvas.tokens.shape[1], at + 1, canvas.stop))


class StaleTail(BlockCache):
    """Learn2PD's dual cache after a cut: keys and values of removed positions stay in use."""

    def refresh(self, rows: Canvas, wanted: Positions):
        self.stop = rows.stop.clone()
        return super().refresh(rows, wanted)

    def recompute(self, rows: Canvas, wanted: Positions):
        return super().recompute(replace(rows, stop=self.stop), wanted)


@dataclass(frozen=True, eq=False)
class WatchedLookahead(ConfidentLookahead):
    """FreeDave++ that notes whether the last verification covered a draft that fills the block."""

    verified: list[bool] = field(default_factory=list)

    def furthest(self, draft: Tensor, truth: Tensor, full: Tensor, mask_id: int) -> int:
        best = super().furthest(draft, truth, full, mask_id)
        covered = full & (draft == truth[best]).all(1)
        self.verified[:] = [bool(covered[best + 1 :].any())]
        return best


@dataclass(frozen=True, eq=False)
class VerifyFullCommit(Revision):
    """FreeDave++ runs the model once more on a threshold commit of several tokens that fills the
    block, although the block is decided."""

    forward: Any
    lookahead: WatchedLookahead

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        if canvas.block_full.all() and committed.sum() > 1 and not any(self.lookahead.verified):
            self.forward.recompute(canvas, Span(canvas.lo, canvas.hi))


class SavingCalls(CommittedCache):
    """SDAR's loop: the prompt's whole blocks, and each finished block, get a call of their own."""

    def __call__(self, rows: Canvas, wanted: Positions):
        self.save(rows)
        return super().__call__(rows, wanted)

    def save(self, rows: Canvas) -> None:
        self.begin(rows)
        kept, final = self.kept[rows.row], self.final(rows)
        if (final > kept).any():
            self.compute(rows, Span(final, final), kept, final)


@dataclass(frozen=True, eq=False)
class SaveLastBlock(Revision):
    """SDAR saves the last block too, although nothing follows it."""

    forward: Any

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        if canvas.done.all():
            self.forward.save(canvas)


@dataclass(frozen=True)
class EndWithBlock(Revision):
    """SDAR and iLLaDA end after a block that holds a stop id; what lies behind it stays masked."""

    stop_ids: tuple[int, ...]

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        ends = torch.isin(canvas.tokens, torch.tensor(self.stop_ids)) & canvas.block
        over = canvas.block_full & ends.any(1)
        canvas.stop = torch.where(over, canvas.hi, canvas.stop)


class NothingBehind(Recompute):
    """iLLaDA's variable length: a block of masks is appended when the one before it is full."""

    def __call__(self, rows: Canvas, wanted: Positions):
        return super().__call__(replace(rows, stop=wanted.at.amax(1) + 1), wanted)


@dataclass(frozen=True)
class EndThinkBoost(Processor):
    """iLLaDA's end of thinking: its next id becomes likelier as the leftmost mask moves right."""

    ids: tuple[int, ...]
    amount: float
    power: float
    length: int

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        logits = logits.clone()
        leftmost = first(rows.masked & rows.text)
        for n, (at, start) in enumerate(zip(leftmost.tolist(), rows.start.tolist(), strict=True)):
            text = rows.tokens[n, start:].tolist()
            if holds(text, self.ids):
                continue
            time = min(1.0, (at - start + 1) / self.length)
            column = int(positions.column(leftmost[:, None])[n])
            token = self.ids[matched(text[: at - start], self.ids)]
            logits[n, column, token] += self.amount * time**self.power
        return logits


def holds(text: list[int], ids: tuple[int, ...]) -> bool:
    return any(tuple(text[i : i + len(ids)]) == ids for i in range(len(text)))


def matched(text: list[int], ids: tuple[int, ...]) -> int:
    """How many of the ids, short of all, the text ends in."""
    lengths = range(len(ids) - 1, 0, -1)
    return next((n for n in lengths if tuple(text[-n:]) == ids[:n]), 0)


@dataclass(frozen=True)
class BlockQuota:
    """Tokens of a step as if no position of the block had been given."""

    block: int
    steps: int

    def __call__(self, canvas: Canvas) -> Tensor:
        more = canvas.block_step < self.block % self.steps
        return torch.minimum(self.block // self.steps + more.long(), canvas.open.sum(1))


@dataclass(frozen=True)
class ThresholdOrQuota(Selection):
    """All above the threshold if they are at least the quota, else the quota's best."""

    threshold: float
    quota: Any

    def __call__(self, canvas: Canvas) -> Tensor:
        sure, quota = canvas.open & (canvas.confidence > self.threshold), self.quota(canvas)
        enough = sure.sum(1) >= quota
        return torch.where(enough[:, None], sure, by_rule(canvas, "topk", quota=quota))


@dataclass(frozen=True)
class EntropySum(Selection):
    """The lowest entropies whose sum stays below the bound."""

    bound: float

    def entropy(self, canvas: Canvas) -> Tensor:
        return canvas.proposal.entropy

    def __call__(self, canvas: Canvas) -> Tensor:
        entropy = self.entropy(canvas).masked_fill(~canvas.open, torch.inf)
        ranked, order = entropy.sort(dim=1, stable=True)
        fits = ranked.cumsum(1) < self.bound
        fits[:, 0] = True
        return torch.zeros_like(fits).scatter(1, order, fits)
