"""Drafts of a diffusion language model: a lattice of the best tokens at each position."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Annotated, Any

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf, conform, require
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.quantize import KINDS
from dlmdecode.speculation.diffuspec.lattice import TopM
from dlmdecode.speculation.drafters.base import Drafter, window
from dlmdecode.speculation.drafters.look import Eyes, Look, PrefixCache, Seen
from dlmdecode.speculation.drafters.plan import Ask, Plan, Proposal, together
from dlmdecode.speculation.drafters.registry import register_drafter

Looking = Generator[Ask, Any, TopM]


class DiffusionDrafter(Drafter):
    """One or a few denoising steps over prefix + masks (DiffuSpec, arXiv 2510.02358).

    Args:
        model: what `dlmdecode.load` or `wrap` give.
        steps: forwards per draft; each but the last commits its share of the most confident tokens.
        num_candidates: M of the lattice.
        prefix_cache: reuse keys and values of the accepted text; off recomputes it in every draft.
    """

    searched = True
    scored = True
    copyable = True
    measures_entropy = True

    def __init__(
        self,
        model: Denoiser,
        steps: Count = 1,
        num_candidates: Count = 15,
        prefix_cache: bool = True,
    ):
        self.model = model
        self.steps: int = conform("steps", steps, Count)
        self.tokenizer, self.eos_ids, self.mask_id = model.tokenizer, model.eos_ids, model.mask_id
        self.vocab_size = model.vocab_size
        cached = conform("prefix_cache", prefix_cache, bool) and model.supports_cache
        self.cache = PrefixCache(model.block_length) if cached else None
        most: int = conform("num_candidates", num_candidates, Count)
        self.eyes = Eyes(model, most)  # which the copies for other rows share
        self.worth: Callable[[int, float], bool] | None = None
        self.entropy = torch.empty(0)  # (K,) nats, of the last draft, where it ends by them
        self.seconds = 0.0  # of its last forward, its share where that was over several rows

    def restrict(self, allowed: Callable[[int], Tensor]) -> None:
        self.eyes.restrict(allowed)

    def end_by(self, worth: Callable[[int, float], bool] | None) -> None:
        self.worth = worth

    def check(self, longest: int) -> None:
        most = f"a step writes one draft token or more: give at most draft_length={longest}"
        require(self.steps <= max(longest, 1), "draft_steps", self.steps, most)

    def reset(self) -> None:
        if self.cache is not None:
            self.cache = PrefixCache(self.model.block_length)

    def draft(self, prefix: list[int], length: int) -> Proposal:
        return together([self.plan(prefix, length)])[0]

    def plan(self, prefix: list[int], length: int) -> Plan:
        """The lattice (at most length, M) after `prefix`, of which the model sees what fits."""
        top = yield from self.lattice(prefix, length)
        if self.worth is None:
            return top
        pairs = enumerate(self.entropy.tolist())
        end = next((at for at, own in pairs if not self.worth(at, own)), length)
        return TopM(top.ids[:end], top.log_prob[:end])

    def lattice(self, prefix: list[int], length: int) -> Looking:
        """The best tokens of each position, and `entropy`, that of each one's distribution."""
        prefix = window(prefix, length, self.model.max_length)
        canvas = torch.full((length,), self.model.mask_id, device=self.model.device)
        open_ = torch.ones_like(canvas, dtype=torch.bool)
        top = yield from self.look(prefix, canvas)
        for left in range(min(self.steps, length), 1, -1):
            where = self.commits(top.log_prob[:, 0].masked_fill(~open_, -torch.inf), left)
            canvas[where] = top.ids[where, 0]
            open_[where] = False
            seen = self.ahead(top, open_)
            if seen == 0:
                break
            canvas, open_, before = canvas[:seen], open_[:seen], self.entropy[:seen]
            top = TopM(top.ids[:seen], top.log_prob[:seen])
            now = yield from self.look(prefix, canvas)
            top = blend(top, now, open_)
            if self.worth is not None:
                self.entropy = torch.where(open_, self.entropy, before)
        return top

    def look(self, prefix: list[int], canvas: Tensor) -> Looking:
        """One forward: the best tokens of each canvas position (K,), and `entropy`."""
        asked = Look(prefix, canvas, self.cache, self.worth is not None)
        seen: Seen = yield Ask(self.eyes, asked)
        self.forwards += seen.forwards
        self.entropy, self.seconds = seen.entropy, seen.seconds
        return seen.top

    def commits(self, confidence: Tensor, left: int) -> Tensor:
        """Positions to commit, by their log probabilities (K,), -inf where nothing is open, with
        `left` forwards to share them, this one included."""
        share = -(-int(confidence.isfinite().sum()) // left)
        return confidence.topk(share).indices

    def ahead(self, top: TopM, open_: Tensor) -> int:
        """How many positions the next forward is over, given which are open (K,); 0: it has no
        say."""
        del top
        return len(open_)


def blend(old: TopM, new: TopM, where: Tensor) -> TopM:
    """`new` at positions `where` (K,), `old` elsewhere."""
    return TopM(*(torch.where(where[:, None], b, a) for a, b in zip(old, new, strict=True)))


@register_drafter("diffusion", paper="arXiv 2510.02358")
def diffusion(
    model: str,
    steps: Count = 1,
    num_candidates: Count = 15,
    prefix_cache: bool = True,
    quantize: Annotated[str, OneOf(KINDS)] | None = None,
) -> DiffusionDrafter:
    """A diffusion language model: name, hub id or folder. A model's name alone means this, too."""
    return DiffusionDrafter(load(model, quantize=quantize), steps, num_candidates, prefix_cache)
