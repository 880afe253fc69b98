"""Forwards of a diffusion model over texts and the masks of their drafts, several in one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dlmdecode.models.protocol import Denoiser, KeyValueHook
from dlmdecode.speculation.diffuspec.lattice import TopM, entropy, top_m
from dlmdecode.speculation.drafters.base import num_shared

LOGITS = 2**25  # that are in memory at a time


class PrefixCache:
    """Keys and values of a text seen before, which a denoiser's forward over its end is given.

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

    def join(self, layer: int, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """What is kept with new keys and values behind it; the first `length` positions stay."""
        if layer in self.store:
            old = self.store[layer]
            k, v = torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)
        self.store[layer] = k[:, :, :length], v[:, :, :length]
        return k, v


class Look(NamedTuple):
    """What a draft asks of the model."""

    prefix: list[int]  # the text, not empty
    canvas: Tensor  # (K,) int64, what follows: masks, and tokens committed among them
    cache: PrefixCache | None
    measured: bool  # whether entropies are wanted


class Seen(NamedTuple):
    """What it sees."""

    top: TopM  # the best tokens (K, M) of each canvas position
    entropy: Tensor  # (K,) nats of each one's distribution, or empty
    forwards: int  # 1 for the first look of a forward, 0 for the others
    seconds: float  # its share of the forward's


class Eyes:
    """A model whose forwards drafts look through; rows that are drafted together share it.

    Args:
        num_candidates: M, tokens of each position.
    """

    def __init__(self, model: Denoiser, num_candidates: int):
        self.model, self.num_candidates = model, num_candidates
        self.allowed: Callable[[int], Tensor] | None = None
        self.forbidden: Tensor | None = None  # (V,) bool, ids that no draft holds; of `allowed`

    def restrict(self, allowed: Callable[[int], Tensor]) -> None:
        self.allowed, self.forbidden = allowed, None

    @torch.inference_mode()
    def __call__(self, looks: list[Look]) -> list[Seen]:
        """What the looks see, in one forward."""
        began = perf_counter()
        states = self.states(looks)
        best, entropies = self.read(torch.cat(states), any(look.measured for look in looks))
        each, seconds = [len(one) for one in states], (perf_counter() - began) / len(looks)
        tops = zip(*(part.split(each) for part in best), strict=True)
        own = entropies.split(each) if len(entropies) else [entropies] * len(looks)
        return [
            Seen(TopM(*top), measured, int(i == 0), seconds)
            for i, (top, measured) in enumerate(zip(tops, own, strict=True))
        ]

    def states(self, looks: list[Look]) -> list[Tensor]:
        """States (K, D) that predict each canvas; what a cache keeps of a text is not computed."""
        model, device = self.model, self.model.device
        starts = [look.cache.reuse(look.prefix) if look.cache else 0 for look in looks]
        fresh = [
            torch.cat([torch.tensor(look.prefix[start:], device=device), look.canvas])
            for look, start in zip(looks, starts, strict=True)
        ]
        widths = [len(new) for new in fresh]
        stops = [start + width for start, width in zip(starts, widths, strict=True)]
        start, stop = torch.tensor([starts, stops], device=device)[..., None]
        tokens = pad_sequence(fresh, batch_first=True, padding_value=model.mask_id)
        position = start + torch.arange(max(widths), device=device)
        every = torch.arange(max(stops), device=device).expand(len(looks), -1)
        shown = None if min(stops) == max(stops) else (every < stop)[:, None, None]
        attend = model.attention(position, every, shown)
        hidden = model.encode(tokens, position, attend, joined(looks, widths))
        for look in looks:
            if look.cache:
                look.cache.ids = look.prefix[: look.cache.whole(len(look.prefix))]
        ends = [width - model.shift for width in widths]
        return [
            row[end - len(look.canvas) : end]
            for row, end, look in zip(hidden, ends, looks, strict=True)
        ]

    def read(self, hidden: Tensor, measured: bool) -> tuple[TopM, Tensor]:
        """The best tokens of states (S, D), and entropies (S,), or none."""
        tops, entropies = [], [hidden.new_empty(0, dtype=torch.float32)]
        for some in hidden.split(max(1, LOGITS // (self.model.vocab_size or LOGITS))):
            logits = self.model.head(some).float()
            if self.forbidden is None:
                self.forbidden = self.without_counterpart(logits.shape[-1]).to(logits.device)
            logits = logits.masked_fill(self.forbidden, -torch.inf)
            tops.append(top_m(logits, self.num_candidates))
            if measured:
                entropies.append(entropy(logits))
        return TopM(*map(torch.cat, zip(*tops, strict=True))), torch.cat(entropies)

    def without_counterpart(self, size: int) -> Tensor:
        """(size,) bool: the mask, and ids that the verifier does not have."""
        every = torch.zeros(size, dtype=torch.bool, device="cpu")
        forbidden = every if self.allowed is None else ~self.allowed(size)
        forbidden[self.model.mask_id] = True
        return forbidden


def joined(looks: list[Look], widths: list[int]) -> KeyValueHook | None:
    """The hook of a forward over `widths` new tokens of each look, padded; None without caches."""
    if looks[0].cache is None:
        return None

    def mix(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for i, (look, width) in enumerate(zip(looks, widths, strict=True)):
            assert look.cache is not None  # all have one, or none
            kept = look.cache.whole(len(look.prefix))
            own = slice(i, i + 1), slice(None), slice(width)
            rows.append(look.cache.join(layer, k[own], v[own], kept))
        k, v = (padded(parts) for parts in zip(*rows, strict=True))
        return k, v

    return mix


def padded(parts: tuple[Tensor, ...]) -> Tensor:
    """Keys or values (1, H, T, D/H) of several texts as one (N, H, T, D/H), zeros at the ends."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.shape[2] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, most - part.shape[2])) for part in parts])
