"""FreeDave (arXiv 2510.00294): draft the next commits, verify them in one forward.

A draft is one more row of the batch: the canvas as it would be after further commits. The rows of a
sequence stand together, its own row (branch 0) first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.caches import BlockCache
from dlmdecode.checks import Count, OneOf, Probability, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.parts import BlockSchedule, Choose, Evaluation, Part, Verification
from dlmdecode.decoding.positions import Positions
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.select import Threshold, by_rule
from dlmdecode.registry import register_sampler
from dlmdecode.settings import Settings

MODES = ("batch", "tree")


def fan_out(canvas: Canvas, depth: int, extend: Callable[[Canvas], Tensor]) -> Canvas:
    """`depth` rows for each row with an open block: branch j is `extend`-ed j times."""
    num = torch.where(canvas.block_full, 1, depth)
    rows = canvas.take(torch.arange(len(canvas), device=num.device).repeat_interleave(num))
    first = (num.cumsum(0) - num).repeat_interleave(num)
    rows.branch = torch.arange(len(rows), device=num.device) - first
    for j in range(1, depth):
        rows.commit(extend(rows) & (rows.branch >= j)[:, None])
    return rows


@dataclass(frozen=True)
class Lookahead(Verification):
    """Draft the next commits from the proposals at hand; keep the longest true chain of them.

    FreeDave (arXiv 2510.00294) over any deterministic stateless rule: draft j commits j times
    without a forward in between, one forward evaluates all drafts, and draft j + 1 counts if it is
    what draft j really becomes. The text is exactly that of the rule without drafts, in fewer
    forwards, under the same cache. A chain never runs past its block's end, where a cache
    refreshes.
    """

    depth: int = 4

    def __post_init__(self) -> None:
        whole("draft_steps", self.depth)

    def refuses(self, other: Part) -> str | None:
        if other.compares_steps:
            return "it compares the forwards of successive steps, and drafts skip some"
        if isinstance(other, BlockSchedule) and other.slides:
            return "drafts stay in one window, and it slides with every commit"
        return "drafts assume that what is committed stays" if other.takes_back else None

    def check(self, sampler: Sampler) -> None:
        require(
            sampler.temperature == 0,
            "temperature",
            sampler.temperature,
            "drafts are verified against the best token: use temperature=0 with freedave",
        )

    def extend(self, rows: Canvas, choose: Choose) -> Tensor:
        return choose(rows)

    def holds(self, target: Tensor, draft: Tensor, canvas: Canvas) -> Tensor:
        """Whether each draft is what its predecessor became."""
        return (target == draft).all(1)

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        rows = fan_out(canvas, self.depth, lambda rows: self.extend(rows, choose))
        useful = [i for i, row in enumerate(rows.seen) if row.branch == 0 or not row.full]
        if len(useful) == len(rows):
            return rows
        return rows.take(torch.tensor(useful, device=rows.lo.device))

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth = rows.copy()
        truth.commit(choose(truth))
        holds = torch.zeros_like(rows.block_full)
        holds[1:] = self.holds(truth.tokens[:-1], rows.tokens[1:], rows) & (rows.branch[1:] > 0)
        first = (rows.branch == 0).nonzero()[:, 0]
        chain = torch.ones_like(first, dtype=torch.bool)
        best = first.clone()
        for _ in range(1, self.depth):
            ahead = (best + 1).clamp(max=len(rows) - 1)
            chain = chain & holds[ahead] & (ahead > best)
            best = torch.where(chain, ahead, best)
        picked = rows.take(best)
        return replace(picked, branch=torch.zeros_like(picked.branch))


@dataclass(frozen=True)
class ConfidentLookahead(Lookahead):
    """FreeDave++: drafts add the most confident positions to a threshold commit. Not lossless.

    From the draft reached, jump to the furthest draft whose tokens all agree with what the reached
    one really becomes. The text visits states that threshold decoding would not.
    """

    lossless = False

    def branch(self, canvas: Canvas, choose: Choose) -> Canvas:
        def most_confident(rows: Canvas) -> Tensor:
            ranked = replace(rows, confidence=rows.proposal.prob)
            return by_rule(ranked, "topk", quota=torch.ones_like(rows.lo))

        rows = fan_out(canvas, self.depth, most_confident)
        grown = torch.ones_like(rows.block_full)
        grown[1:] = (rows.tokens[1:] != rows.tokens[:-1]).any(1)
        return rows.take(((rows.branch == 0) | grown).nonzero()[:, 0])

    def pick(self, rows: Canvas, choose: Choose) -> Canvas:
        truth = rows.copy()
        truth.commit(choose(truth))
        full = rows.block_full & (rows.branch > 0)
        best = []
        for first in (rows.branch == 0).nonzero()[:, 0].tolist():
            last = first + 1
            while last < len(rows) and rows.branch[last] > 0:
                last += 1
            best.append(self.furthest(rows.tokens, truth.tokens, full, rows.mask_id, first, last))
        picked = rows.take(torch.tensor(best, device=rows.lo.device))
        return replace(picked, branch=torch.zeros_like(picked.branch))

    def furthest(
        self, draft: Tensor, truth: Tensor, full: Tensor, mask_id: int, first: int, last: int
    ) -> int:
        """The row to keep; one whose next commit fills the block as a verified draft does."""
        reached = first
        while True:
            agrees = [
                j
                for j in range(reached + 1, last)
                if ((draft[j] == truth[reached]) | (draft[j] == mask_id)).all()
            ]
            if not agrees or full[agrees[-1]]:
                return reached
            reached = agrees[-1]


class PackedDrafts(BlockCache):
    """The same cache, with the drafts of a sequence side by side in one row that reads it once.

    A draft sees the store outside the window, and its own copy of the window only.
    """

    def encode(self, rows: Canvas, window: Positions, query: Tensor) -> Tensor:
        if not (rows.branch > 0).any():
            return super().encode(rows, window, query)
        head = (rows.branch == 0).nonzero()[:, 0]  # the first row of each sequence
        group = (rows.branch == 0).long().cumsum(0) - 1
        num, depth, width = len(head), int(rows.branch.max()) + 1, query.shape[1]
        slot = group * depth + rows.branch  # where each draft stands among num * depth places

        def pack(value: Tensor, empty: int) -> Tensor:
            packed = value.new_full((num * depth, width), empty)
            return packed.index_copy(0, slot, value).view(num, depth * width)

        column, shift = torch.arange(width, device=slot.device), self.model.shift
        own = (column >= shift) & (column < window.count[:, None] + shift)
        own = pack(own.long(), 0).bool()
        draft = torch.arange(depth, device=slot.device).repeat_interleave(width)
        beside = own[:, None] & (draft[:, None] == draft)
        first, position = rows.take(head), rows.position[head]
        kept = self.shown(first) & ~window.take(head).contains(position)
        shown = torch.cat([kept[:, None].expand(-1, depth * width, -1), beside], 2)[:, None]
        packed = pack(query, 0)
        attend = self.model.attention(packed, torch.cat([position, packed], 1), shown)

        def extend(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            old = self.store.read(layer, rows.row[head], position.shape[1])
            return torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)

        tokens = pack(rows.tokens.gather(1, query), rows.eos_ids[0])
        self.work.add(tokens)
        hidden = self.model.encode(tokens, packed, attend, extend)
        return hidden.view(num * depth, width, -1)[slot]


@dataclass(frozen=True)
class DraftsInOneRow(Evaluation):
    """Drafts side by side in one row, under a cache whose keys and values they share."""

    sees_suffix = True

    def __call__(self, model: Denoiser, settings: Settings) -> Forward:
        fix = "packed drafts share cached keys and values: set cache='prefix' or cache='dual'"
        require(settings.cache in ("prefix", "dual"), "draft_mode", "tree", fix)
        return PackedDrafts(model, dual=settings.cache == "dual")


@register_sampler(
    "freedave",
    over="vanilla",
    paper="arXiv 2510.00294",
    recorded=("freedave",),
    presets={"Dream": {"draft_steps": 8}},
)
def freedave(
    draft_steps: Count = 4,
    draft_mode: Annotated[str, OneOf(MODES)] = "batch",
    threshold: Probability | None = None,
) -> Sampler:
    """Verify up to `draft_steps` drafted commits a forward; lossless unless `threshold` is set."""
    packed = Sampler(evaluate=DraftsInOneRow() if draft_mode == "tree" else None)
    if threshold is None:
        return packed.merge(Sampler(verify=Lookahead(draft_steps)))
    return packed.merge(Sampler(Threshold(threshold), verify=ConfidentLookahead(draft_steps)))
