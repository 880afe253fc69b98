"""What the diffusion model is shown in training: canvases, and the ways to mask them.

Shapes: **B** rows, **L** canvas. `start` and `stop` (B, 1) say where an answer begins and ends,
`place` (L,) counts positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.data import Example


def canvases(batch: list[Example], length: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, L) with end tokens to the right, and where each answer starts and ends (B, 1)."""
    tokens = torch.full((len(batch), length), end)
    for row, example in enumerate(batch):
        tokens[row, : len(example)] = torch.tensor(example.question + example.answer)
    start = torch.tensor([[len(example.question)] for example in batch])
    stop = torch.tensor([[len(example)] for example in batch])
    return tokens, start, stop


def digit_ids(tokenizer: Any) -> Tensor:
    """The tokens that are digits, with or without a space: what an answer's structure waits for."""
    ids = range(len(tokenizer))
    return torch.tensor([i for i in ids if tokenizer.decode([i]).strip().isdigit()])


def uniform_masks(place: Tensor, start: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Masks (B, L) in complementary pairs of rows and their weights 1/t; answers come in pairs too.

    `place` (L,) counts positions. t is spread evenly over the batch.
    """
    half = len(start) // 2
    t = (torch.arange(half)[:, None] + torch.rand(1, 1, generator=generator)) / half
    t = t.clamp(0.02, 0.98)
    hidden = torch.rand(half, len(place), generator=generator) < t
    masked = torch.stack([hidden, ~hidden], 1).flatten(0, 1)
    share = torch.stack([t, 1 - t], 1).flatten(0, 1)
    return masked & (place >= start), (1 / share).expand(-1, len(place))


def block_masks(
    place: Tensor,
    start: Tensor,
    stop: Tensor,
    last: Tensor,
    generator: torch.Generator,
    largest: int = 32,
) -> tuple[Tensor, ...]:
    """Masks (B, L) that a block-by-block decoder meets, and weights that ask for the block only.

    A decoder writes what it is sure of first: tokens other than those of `last` (B, L) are open
    less often, in each row by another factor from 0 to 1.
    """
    rows = len(start)
    lo = start + (torch.rand(rows, 1, generator=generator) * (stop - start)).long()
    width = torch.randint(4, largest + 1, (rows, 1), generator=generator)
    t = (torch.arange(rows)[:, None] + torch.rand(1, 1, generator=generator)) / rows
    t = t[torch.randperm(rows, generator=generator)]
    t = torch.where(last, t, t * torch.rand(rows, 1, generator=generator)).clamp(0.05)
    inside = (place >= lo) & (place < lo + width)
    masked = inside & (torch.rand(rows, len(place), generator=generator) < t)
    weight = inside * (1 / t) * ((stop - start) / width)
    return masked | (place >= lo + width), weight


def two_streams(
    tokens: Tensor, start: Tensor, stop: Tensor, mask: int, generator: torch.Generator, shift: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every block of every answer masked at once, each given the true text to its left.

    The clean text (B, L) is followed by a noised copy of it, in blocks of 1 to 16 tokens. A clean
    token sees the clean tokens before it; a noised one sees the clean tokens left of its block
    and its own block (arXiv 2503.09573). With `shift` 1 a position speaks for the token to its
    right, so that a block begins one position earlier, with a token that is known. Returns tokens
    and positions (B, S), who sees whom (B, 1, S, S), and which positions are asked for their token
    (B, L): the S - L noised ones are the last of L.
    """
    place, first = torch.arange(tokens.shape[1]), int(start.min()) - shift
    width = 2 ** torch.randint(0, 5, start.shape, generator=generator)
    width = torch.where(torch.rand(start.shape, generator=generator) < 0.5, 1, width)
    spoken = place + shift
    answer = (spoken >= start) & (spoken < stop)
    share = torch.rand(start.shape, generator=generator).masked_fill(width == 1, 1.0)
    asked = answer & (torch.rand(tokens.shape, generator=generator) < share)
    known = (spoken - start) % width == 0 if shift else torch.tensor(False)
    hidden = asked.roll(shift, 1) & ~known
    block = torch.where(answer, (spoken - start) // width, -1 - place)[:, first:]
    left = (start - shift + block * width).clamp(0)
    clean = (place <= place[:, None]).expand(len(tokens), -1, -1)
    noised = torch.cat([place < left[..., None], block[..., None] == block[:, None]], -1)
    clean = torch.cat([clean, torch.zeros(len(tokens), len(place), block.shape[1]).bool()], -1)
    both = torch.cat([tokens, tokens.masked_fill(hidden, mask)[:, first:]], 1)
    position = torch.cat([place, place[first:]]).expand_as(both)
    return both, position, torch.cat([clean, noised], 1)[:, None], asked
