"""Drafts of a diffusion language model: a lattice of the best tokens at each position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.checks import Count, conform, require
from dlmdecode.models.protocol import Denoiser
from dlmdecode.speculation.diffuspec.lattice import TopM
from dlmdecode.speculation.drafters.base import num_shared

FUSED = 32  # candidates that `ops.topm` finds in one read


def top_m(logits: Tensor, num: int) -> TopM:
    """The `num` best tokens of logits (K, V) with their log probabilities, best first."""
    if num <= FUSED:
        return TopM(*ops.topm(logits, num))
    best, ids = logits.topk(min(num, logits.shape[-1]), -1)
    return TopM(ids, (best.float() - logits.float().logsumexp(-1, keepdim=True)))


class PrefixCache:
    """Keys and values of text seen before, given back to a denoiser through its cache hook.

    Where attention is bidirectional, what is kept was computed beside another future than the
    present one: an approximation, which changes drafts and never the verified text. Of a model
    whose attention is causal between blocks whole blocks are kept, which is exact.
    """

    def __init__(self, block: int | None = None) -> None:
        self.block = block or 1
        self.ids: list[int] = []
        self.store: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values (1, H, T, D/H)

    def reuse(self, prefix: list[int]) -> int:
        """Keep what the text shares with the last one, all but its last token; how much that is."""
        length = self.whole(num_shared(self.ids, prefix[:-1]))
        self.store = {
            layer: (k[:, :, :length], v[:, :, :length]) for layer, (k, v) in self.store.items()
        }
        self.ids = prefix[:length]
        return length

    def whole(self, length: int) -> int:
        """Positions in whole blocks among the first `length`."""
        return length // self.block * self.block

    def hook(self, length: int) -> Any:
        """The hook of one forward; of what it sees, the first `length` positions stay."""

        def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if layer in self.store:
                old = self.store[layer]
                k, v = torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)
            self.store[layer] = k[:, :, :length], v[:, :, :length]
            return k, v

        return mix


class DiffusionDrafter:
    """One or a few denoising steps over prefix + masks (DiffuSpec, arXiv 2510.02358).

    Args:
        model: what `dlmdecode.load` or `wrap` give.
        steps: forwards per draft; each but the last commits its share of the most confident tokens.
        num_candidates: M of the lattice.
        prefix_cache: reuse keys and values of the accepted text; off recomputes it in every draft.
    """

    def __init__(
        self,
        model: Denoiser,
        steps: int = 1,
        num_candidates: int = 15,
        prefix_cache: bool = True,
    ):
        self.model = model
        self.steps = conform("steps", steps, Count)
        self.num_candidates = conform("num_candidates", num_candidates, Count)
        self.tokenizer, self.eos_ids = model.tokenizer, model.eos_ids
        self.vocab_size = model.vocab_size
        cached = prefix_cache and model.supports_cache
        self.cache = PrefixCache(model.block_length) if cached else None
        self.allowed: Tensor | None = None
        self.words: Any = None
        self.forwards = 0

    def restrict(self, words: Any) -> None:
        """Draft only ids that a `Vocabulary` allows; None allows all but the mask."""
        self.words, self.allowed = words, None

    def reset(self) -> None:
        """Forget the last text, so that a row's drafts do not depend on the one before it."""
        if self.cache is not None:
            self.cache = PrefixCache(self.model.block_length)

    @torch.inference_mode()
    def draft(self, prefix: list[int], length: int) -> TopM:
        """The lattice (length, M) after `prefix`, of which the model sees what fits."""
        prefix = self.window(prefix, length)
        canvas = torch.full((length,), self.model.mask_id, device=self.model.device)
        open_ = torch.ones_like(canvas, dtype=torch.bool)
        top = None
        for step in range(min(self.steps, length)):
            fresh = self.top(prefix, canvas)
            top = fresh if top is None else blend(top, fresh, open_)
            remaining = min(self.steps, length) - step
            share = -(-int(open_.sum()) // remaining)
            confidence = top.log_prob[:, 0].masked_fill(~open_, -torch.inf)
            where = confidence.topk(share).indices
            canvas[where] = top.ids[where, 0]
            open_[where] = False
        assert top is not None
        return top

    def window(self, prefix: list[int], length: int) -> list[int]:
        """The end of a text that leaves room for the draft; half of it, so that caches last."""
        limit = self.model.max_length
        if limit is None or len(prefix) + length <= limit:
            return prefix
        room = limit - length
        require(room >= 2, "draft_length", length, f"the drafter addresses {limit} positions")
        excess = len(prefix) - room
        half = room // 2
        return prefix[-(-excess // half) * half :]

    def top(self, prefix: list[int], canvas: Tensor) -> TopM:
        """One forward: the best tokens of each canvas position (K,)."""
        self.forwards += 1
        model, shift = self.model, self.model.shift
        start = self.cache.reuse(prefix) if self.cache else 0
        tokens = torch.cat([torch.tensor(prefix[start:], device=model.device), canvas])
        position = torch.arange(start, start + len(tokens), device=model.device)
        kept = self.cache.whole(len(prefix)) if self.cache else 0
        hook = self.cache.hook(kept) if self.cache else None
        every = torch.arange(start + len(tokens), device=model.device)
        attend = model.attention(position[None], every[None])
        hidden = model.encode(tokens[None], position[None], attend, hook)[0]
        if self.cache:
            self.cache.ids = prefix[:kept]
        first = len(tokens) - len(canvas) - shift
        logits = model.head(hidden[first : first + len(canvas)]).float()
        return top_m(logits.masked_fill(self.forbidden(logits), -torch.inf), self.num_candidates)

    def forbidden(self, logits: Tensor) -> Tensor:
        """(V,) bool, ids that no draft holds."""
        if self.allowed is None:
            size = logits.shape[-1]
            self.allowed = torch.ones(size, dtype=torch.bool, device="cpu")
            if self.words is not None:
                self.allowed = self.words.allowed(size)
            self.allowed[self.model.mask_id] = False
            self.allowed = self.allowed.to(logits.device)
        return ~self.allowed


def blend(old: TopM, new: TopM, where: Tensor) -> TopM:
    """`new` at positions `where` (K,), `old` elsewhere."""
    return TopM(*(torch.where(where[:, None], b, a) for a, b in zip(old, new, strict=True)))
