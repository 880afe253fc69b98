"""FreeDave (arXiv 2510.00294): draft the next commits, verify them in one forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf, Probability, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import most_confident
from dlmdecode.decoding.parts import Choose, Part
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.drafts import Drafts, by_branch, fan_out, keep, only, sequence_of
from dlmdecode.parts.select import Threshold
from dlmdecode.registry import register_sampler
from dlmdecode.samplers.freedave_packed import DraftsInOneRow


@dataclass(frozen=True)
class Lookahead(Drafts):
    """Draft the next commits from the proposals at hand; keep the longest true chain of them.

    Over any deterministic stateless rule: draft j commits j times without a forward in between, one
    forward evaluates all drafts, and draft j + 1 counts if it is what draft j really becomes. The
    text is exactly that of the rule without drafts, in fewer forwards, under the same cache. A
    chain never runs past its block's end, where a cache refreshes.
    """

    depth: int = 4

    def __post_init__(self) -> None:
        whole("draft_steps", self.depth)

    def refuses(self, other: Part) -> str | None:
        if other.compares_steps:
            return "it compares the forwards of successive steps, and drafts skip some"
        return super().refuses(other)

    def check(self, sampler: Sampler) -> None:
        fix = "drafts are verified against the best token: use temperature=0 with freedave"
        require(sampler.temperature == 0, "temperature", sampler.temperature, fix)

    def drafts(self, canvas: Canvas, extend: Callable[[Canvas], Tensor]) -> Canvas:
        """Rows of which branch j is `extend`-ed j times."""
        rows = fan_out(canvas, torch.where(canvas.block_full, 1, self.depth))
        for j in range(1, self.depth):
            rows.commit(extend(rows) & (rows.branch >= j)[:, None])
        return rows

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = self.drafts(canvas, choose)
        return only(rows, [row.branch == 0 or not row.full for row in rows.seen])

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth, holds = true_tokens(rows, choose), torch.zeros_like(rows.branch)
        holds[1:] = (truth[:-1] == rows.tokens[1:]).all(1) & (rows.branch[1:] > 0)
        return keep(rows, by_branch(rows, holds, empty=0)[:, 1:].cumprod(1).sum(1))


def true_tokens(rows: Canvas, choose: Choose) -> Tensor:
    """What the rows really become, (N, L)."""
    truth = rows.copy()
    truth.commit(choose(truth))
    return truth.tokens


@dataclass(frozen=True)
class ConfidentLookahead(Lookahead):
    """FreeDave++: drafts add the most confident positions to a threshold commit. Not lossless.

    From the draft reached, jump to the furthest draft whose tokens all agree with what the reached
    one really becomes. The text visits states that threshold decoding would not.
    """

    lossless = False

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = self.drafts(canvas, lambda rows: most_confident(rows.proposal.prob, rows.open, 1))
        grown = torch.ones_like(rows.block_full)
        grown[1:] = (rows.tokens[1:] != rows.tokens[:-1]).any(1)
        return rows.take(((rows.branch == 0) | grown).nonzero()[:, 0])

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth, num = true_tokens(rows, choose), sequence_of(rows).bincount().tolist()
        parts = (rows.tokens, truth, rows.block_full)
        each = zip(*(part.split(num) for part in parts), strict=True)
        best = [self.furthest(draft, true, full, rows.mask_id) for draft, true, full in each]
        return keep(rows, torch.tensor(best, device=rows.lo.device))

    def furthest(self, draft: Tensor, truth: Tensor, full: Tensor, mask_id: int) -> int:
        """Which of a sequence's drafts (D, L) to keep; `truth` is what each becomes."""
        same = (draft == truth[:, None]) | (draft == mask_id)
        agrees, reached = same.all(2).triu(1), 0  # of draft i what it becomes, and draft j
        while len(ahead := agrees[reached].nonzero()) and not full[last := int(ahead[-1])]:
            reached = last  # the next commit fills the block as a full draft does
        return reached


@register_sampler(
    "freedave",
    over="vanilla",
    paper="arXiv 2510.00294",
    recorded=("freedave",),
    presets={"Dream": {"draft_steps": 8}},
)
def freedave(
    draft_steps: Count = 4,
    draft_mode: Annotated[str, OneOf(("batch", "tree"))] = "batch",
    threshold: Probability | None = None,
) -> Sampler:
    """Verify up to `draft_steps` drafted commits a forward; lossless unless `threshold` is set."""
    packed = Sampler(evaluate=DraftsInOneRow() if draft_mode == "tree" else None)
    if threshold is None:
        return packed.merge(Sampler(verify=Lookahead(draft_steps)))
    return packed.merge(Sampler(Threshold(threshold), verify=ConfidentLookahead(draft_steps)))
