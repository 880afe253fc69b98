"""Drafts of a diffusion language model: a lattice of the best tokens at each position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from dlmdecode.checks import Count, OneOf, conform, require
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser, KeyValueHook
from dlmdecode.models.quantize import KINDS
from dlmdecode.speculation.diffuspec.lattice import TopM, entropy, top_m
from dlmdecode.speculation.drafters.base import Drafter, num_shared, window
from dlmdecode.speculation.drafters.registry import register_drafter


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

    def hook(self, length: int) -> KeyValueHook:
        """The hook of one forward; of what it sees, the first `length` positions stay."""

        def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if layer in self.store:
                old = self.store[layer]
                k, v = torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)
            self.store[layer] = k[:, :, :length], v[:, :, :length]
            return k, v

        return mix


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
        self.num_candidates: int = conform("num_candidates", num_candidates, Count)
        self.tokenizer, self.eos_ids, self.mask_id = model.tokenizer, model.eos_ids, model.mask_id
        self.vocab_size = model.vocab_size
        cached = conform("prefix_cache", prefix_cache, bool) and model.supports_cache
        self.cache = PrefixCache(model.block_length) if cached else None
        self.worth: Callable[[int, float], bool] | None = None
        self.entropy = torch.empty(0)  # (K,) nats, of the last draft, where it ends by them
        self.allowed: Callable[[int], Tensor] | None = None
        self.forbidden: Tensor | None = None  # (V,) bool, ids that no draft holds; of `allowed`

    def restrict(self, allowed: Callable[[int], Tensor]) -> None:
        self.allowed, self.forbidden = allowed, None

    def end_by(self, worth: Callable[[int, float], bool] | None) -> None:
        self.worth = worth

    def check(self, longest: int) -> None:
        most = f"a step writes one draft token or more: give at most draft_length={longest}"
        require(self.steps <= max(longest, 1), "draft_steps", self.steps, most)

    def reset(self) -> None:
        if self.cache is not None:
            self.cache = PrefixCache(self.model.block_length)

    def draft(self, prefix: list[int], length: int) -> TopM:
        """The lattice (at most length, M) after `prefix`, of which the model sees what fits."""
        top = self.lattice(prefix, length)
        if self.worth is None:
            return top
        pairs = enumerate(self.entropy.tolist())
        end = next((at for at, own in pairs if not self.worth(at, own)), length)
        return TopM(top.ids[:end], top.log_prob[:end])

    @torch.inference_mode()
    def lattice(self, prefix: list[int], length: int) -> TopM:
        """The best tokens of each position, and `entropy`, that of each one's distribution."""
        prefix = window(prefix, length, self.model.max_length)
        canvas = torch.full((length,), self.model.mask_id, device=self.model.device)
        open_ = torch.ones_like(canvas, dtype=torch.bool)
        top = self.top(prefix, canvas)
        for left in range(min(self.steps, length), 1, -1):
            where = self.commits(top.log_prob[:, 0].masked_fill(~open_, -torch.inf), left)
            canvas[where] = top.ids[where, 0]
            open_[where] = False
            if self.whole(top, open_):
                break
            before = self.entropy
            top = blend(top, self.top(prefix, canvas), open_)
            if self.worth is not None:
                self.entropy = torch.where(open_, self.entropy, before)
        return top

    def commits(self, confidence: Tensor, left: int) -> Tensor:
        """Positions to commit, by their log probabilities (K,), -inf where nothing is open, with
        `left` forwards to share them, this one included."""
        share = -(-int(confidence.isfinite().sum()) // left)
        return confidence.topk(share).indices

    def whole(self, top: TopM, open_: Tensor) -> bool:
        """Whether no further forward has a say, given the open positions (K,)."""
        del top, open_
        return False

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
        if self.forbidden is None:
            self.forbidden = self.without_counterpart(logits.shape[-1]).to(logits.device)
        logits = logits.masked_fill(self.forbidden, -torch.inf)
        if self.worth is not None:
            self.entropy = entropy(logits)
        return top_m(logits, self.num_candidates)

    def without_counterpart(self, size: int) -> Tensor:
        """(size,) bool: the mask, and ids that the verifier does not have."""
        every = torch.zeros(size, dtype=torch.bool, device="cpu")
        forbidden = every if self.allowed is None else ~self.allowed(size)
        forbidden[self.model.mask_id] = True
        return forbidden


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
