"""CORE (arXiv 2602.04096): mask the shakiest tokens again, and replace what does not come back."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dlmdecode.checks import Count, Natural, Probability, whole
from dlmdecode.decoding.canvas import Canvas, Proposal
from dlmdecode.decoding.parts import Choose, Processor, Verification
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.scores import Margin
from dlmdecode.parts.select import EvenQuota, TopK
from dlmdecode.registry import register_sampler

ASKED, WAS, PROB, AGAIN = "core asked", "core was", "core probability", "core again"  # memory


@dataclass(frozen=True)
class OldTokens(Processor):
    """Remembers what a forward gives the tokens that it was not shown, (B, L)."""

    def __call__(self, logits: Tensor, rows: Canvas, positions: Positions) -> Tensor:
        token = rows.memory[WAS].gather(1, positions.at)[..., None]
        log_prob = logits.float().log_softmax(-1).gather(2, token)[..., 0]
        rows.memory[PROB] = log_prob.exp().gather(1, positions.column(rows.position)).double()
        return logits


@dataclass(frozen=True)
class AskAgain(Verification):
    """From a quarter to three quarters of a block's steps, every `every`-th one looks twice.

    Of the block's tokens, but for its last `tail` positions, the `candidates` with the smallest
    margins are masked at once. Of those where the forward prefers another token, with probability
    `floor` or more, the `most` whose old ones it finds least likely are replaced. The step then
    commits what the first forward proposed, or, if `joint`, a third one that sees the new tokens.
    """

    reads_committed = True
    takes_back = True
    lossless = False
    quota: EvenQuota
    every: int = 8
    candidates: int = 32
    most: int = 1
    floor: float = 0.3
    tail: int = 16
    joint: bool = False

    def __post_init__(self) -> None:
        whole("every", self.every)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows, memory = replace(canvas, memory=dict(canvas.memory)), canvas.memory
        asked = memory.get(ASKED, torch.zeros_like(rows.text))
        rows.memory |= {ASKED: asked, WAS: rows.tokens}
        rows.memory |= {(self, f.name): getattr(rows.proposal, f.name) for f in fields(Proposal)}
        rows.remask(asked)
        rows.branch = asked.any(1).long()  # what is masked for a look is not kept by a cache
        return rows

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        asked, memory = rows.memory[ASKED], rows.memory
        looked = asked.any(1)
        rows.tokens = torch.where(asked, memory[WAS], rows.tokens)
        worth = self.worth(rows, memory[WAS]).masked_fill(~asked, -torch.inf)
        rank = worth.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        count = self.quota(rows).clamp(max=self.most)
        new = (rank < count[:, None]) & (worth > -torch.inf)
        rows.tokens = torch.where(new, rows.proposal.token, rows.tokens)
        names = [f.name for f in fields(Proposal)]
        pairs = ((memory[self, name], getattr(rows.proposal, name)) for name in names)
        rows.proposal = Proposal(*(torch.where(looked[:, None], *pair) for pair in pairs))
        before = memory.get(AGAIN, torch.zeros_like(looked))
        memory[AGAIN] = new.any(1) & self.joint
        memory[ASKED] = self.shaky(rows) & ~(looked | before)[:, None]
        return replace(rows, branch=torch.zeros_like(rows.branch))

    def worth(self, rows: Canvas, old: Tensor) -> Tensor:
        """How much a new token is called for, (B, L), −inf where it is not."""
        other = (rows.proposal.token != old) & (rows.proposal.prob >= self.floor)
        return -(rows.memory[PROB] + 1e-10).log().masked_fill(~other, torch.inf)

    def shaky(self, rows: Canvas) -> Tensor:
        """What to mask for a look, (B, L) bool; nothing where none is due."""
        steps = self.quota.of_block(rows)
        first, last = steps // 4, steps * 3 // 4
        due = (rows.block_step % self.every == 0) & (rows.block_step >= first)
        due = due & (rows.block_step < last) & ~rows.block_full
        left = rows.block.flip(1).cumsum(1).flip(1)  # positions of the block from each one on
        here = rows.block & ~rows.masked & (left > self.tail)
        margin = Margin()(rows.proposal.prob, rows).masked_fill(~here, torch.inf)
        rank = margin.argsort(dim=1, stable=True).argsort(dim=1)
        return here & (rank < self.candidates) & due[:, None]

    def looks(self, canvas: Canvas) -> Tensor:
        return canvas.memory[ASKED].any(1) | canvas.memory[AGAIN]


@register_sampler("core", paper="arXiv 2602.04096", recorded=("core",))
def core(
    every: Count = 8,
    candidates: Count = 32,
    most: Count = 1,
    floor: Probability = 0.3,
    tail: Natural = 16,
    joint: bool = False,
    steps: Count | None = None,
) -> Sampler:
    """Mask the least certain tokens at times, all at once; replace what does not come back."""
    quota = EvenQuota(steps)
    again = AskAgain(quota, every, candidates, most, floor, tail, joint)
    return Sampler(select=TopK(quota), verify=again, processors=(OldTokens(),))
