"""Flash-Verify (Flash-dLLM, arXiv 2609.26796): every second forward verifies what is not so sure.

From the paper's rule and a description of the authors' code, without its cache. Their text ends at
the last end token that one step commits; here, as everywhere, at the first one with no mask before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf, PositiveProbability, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Choose, Part, Revision, Stop, Verification
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import MaskWindow
from dlmdecode.parts.processors import StandingProbability
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.flash_verify_pack import ORDER, DraftsBeside, in_order

RULES = ("product", "each")


@dataclass(frozen=True)
class Next(Revision):
    """The `most` surest masks that a step leaves in its window are the drafts of the next one.

    Remembers their order, 1, 2, …, (B, L) int64, 0 elsewhere.
    """

    most: int = 8

    def __post_init__(self) -> None:
        whole("drafts", self.most)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        left = canvas.open & committed.any(1, keepdim=True)  # none behind a step that only looked
        ranked = canvas.confidence.masked_fill(~left, -torch.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
        canvas.memory[ORDER] = order.masked_fill(~left | (order > self.most), 0)


@dataclass(frozen=True)
class LikelyRun(Verification):
    """Keep the first drafts, in their order, that are likely given all before them.

    By "product" as long as the product of their probabilities is at least `gamma`; by "each", the
    paper's rule, as long as each one's is, and the draft is what would be written there now.
    """

    lossless = False
    standing: StandingProbability
    gamma: float = 0.8
    rule: str = "product"

    def refuses(self, other: Part) -> str | None:
        if other.compares_steps or other.stateful:
            return "it takes every forward for a step, and every second one only looks at drafts"
        if isinstance(other, Stop):
            return "it would write what a forward says that only looks at drafts"
        return "drafts assume that what is committed stays" if other.takes_back else None

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        order = canvas.memory.get(ORDER, torch.zeros_like(canvas.tokens)) * canvas.masked
        rows = replace(canvas, memory=canvas.memory | {ORDER: order})
        rows.tokens = torch.where(order > 0, canvas.proposal.token, canvas.tokens)
        rows.branch = (order > 0).any(1).long()
        return rows

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        order = rows.memory[ORDER]
        at, real = in_order(order)
        prob = rows.memory[self.standing].double().gather(1, at)
        if self.rule == "product":
            likely = prob.cumprod(1) >= self.gamma
        else:
            same = (rows.proposal.token == rows.tokens).gather(1, at)
            likely = (prob >= self.gamma) & same
        run = (likely & real).long().cumprod(1).bool()
        rows.remask((order > 0).scatter(1, at, real & ~run))
        rows.memory[self] = real.any(1)
        return replace(rows, branch=torch.zeros_like(rows.branch))

    def looks(self, canvas: Canvas) -> Tensor:
        return canvas.memory[self]


@register_sampler(
    "flash_verify", over="threshold", paper="Flash-dLLM (arXiv 2609.26796), its code not recorded"
)
def flash_verify(
    gamma: PositiveProbability = 0.8,
    drafts: Count = 8,
    rule: Annotated[str, OneOf(RULES)] = "product",
    block_length: Count | None = 16,
) -> Sampler:
    """Verify the next `drafts` positions in a second forward, and keep those likely in a row.

    The window is the first `block_length` masks. Published gamma: 0.8, for MATH and HumanEval 0.85.
    """
    fix = "it is the number of masks in the window: give one"
    require(block_length is not None, "block_length", None, fix)
    standing = StandingProbability()
    return Sampler(
        blocks=MaskWindow(block_length),  # type: ignore[arg-type]
        processors=(standing,),
        verify=LikelyRun(standing, gamma, rule),
        revisions=(Next(drafts),),
        evaluate=DraftsBeside(),
    )
