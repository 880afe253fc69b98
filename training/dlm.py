"""Train the embedded diffusion language model, with the masked-diffusion objective of LLaDA.

    python -m training.dlm --config training/configs/tiny.json --run runs/tiny

Loss on the answer only (arXiv 2502.09992): mask a share t of it and of its tail of end tokens, weigh
every masked token 1/t. Two things make it converge within an hour on a CPU: every answer comes
twice, with complementary masks; and half of the batch hides one block partly and everything right
of it entirely, which is what decoding block by block meets.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.models.llada import LLaDA
from training.data import Example
from training.loop import main


def canvases(batch: list[Example], length: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, L) with end tokens to the right, and where each answer starts and ends (B, 1)."""
    tokens = torch.full((len(batch), length), end)
    for row, example in enumerate(batch):
        tokens[row, : len(example)] = torch.tensor(example.question + example.answer)
    start = torch.tensor([[len(example.question)] for example in batch])
    stop = torch.tensor([[len(example)] for example in batch])
    return tokens, start, stop


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
    place: Tensor, start: Tensor, stop: Tensor, generator: torch.Generator, largest: int = 32
) -> tuple[Tensor, ...]:
    """Masks (B, L) that a block-by-block decoder meets, and weights that ask for the block only."""
    rows = len(start)
    lo = start + (torch.rand(rows, 1, generator=generator) * (stop - start)).long()
    width = torch.randint(4, largest + 1, (rows, 1), generator=generator)
    t = (torch.arange(rows)[:, None] + torch.rand(1, 1, generator=generator)) / rows
    t = t.clamp(0.05)[torch.randperm(rows, generator=generator)]
    inside = (place >= lo) & (place < lo + width)
    masked = inside & (torch.rand(rows, len(place), generator=generator) < t)
    weight = inside * (1 / t) * ((stop - start) / width)
    return masked | (place >= lo + width), weight


def two_streams(
    tokens: Tensor, start: Tensor, stop: Tensor, mask: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every block of every answer masked at once, each given the true text to its left.

    The clean text (B, L) is followed by a noised copy of it, in blocks of 1, 2, 4, … tokens. A clean
    token sees the clean tokens before it; a noised one sees the clean tokens left of its block and
    its own block (arXiv 2503.09573). Returns tokens and positions (B, S), who sees whom
    (B, 1, S, S), and which positions are asked for (B, L): the S - L noised ones are the last of L.
    """
    place, first = torch.arange(tokens.shape[1]), int(start.min())
    width = 2 ** torch.randint(0, 5, start.shape, generator=generator)
    width = torch.where(torch.rand(start.shape, generator=generator) < 0.5, 1, width)
    answer = (place >= start) & (place < stop)
    share = torch.rand(start.shape, generator=generator).masked_fill(width == 1, 1.0)
    asked = answer & (torch.rand(tokens.shape, generator=generator) < share)
    block = torch.where(answer, (place - start) // width, -1 - place)[:, first:]
    left = (start + block * width).clamp(0)
    clean = (place <= place[:, None]).expand(len(tokens), -1, -1)
    noised = torch.cat([place < left[..., None], block[..., None] == block[:, None]], -1)
    clean = torch.cat([clean, torch.zeros(len(tokens), len(place), block.shape[1]).bool()], -1)
    both = torch.cat([tokens, tokens.masked_fill(asked, mask)[:, first:]], 1)
    position = torch.cat([place, place[first:]]).expand_as(both)
    return both, position, torch.cat([clean, noised], 1)[:, None], asked


class MaskedDiffusion:
    """The objective: `loss(model, batch, step)`."""

    def __init__(self, config: dict[str, Any], tokenizer: Any):
        self.end, self.mask = tokenizer.eos_token_id, tokenizer.mask_token_id
        self.config, self.seed = config, config["seed"]

    def build(self) -> LLaDA:
        torch.manual_seed(self.seed)
        model = LLaDA(self.config["model"])
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                deep = (2 * model.num_layers) ** -0.5 if "blocks" in name and "out" in name else 1
                torch.nn.init.normal_(weight, std=0.02 if "wte" in name else deep * 0.06)
        model.mask_id, model.eos_ids = self.mask, (self.end,)
        return model

    def length(self, batch: list[Example], generator: torch.Generator) -> int:
        """Mostly a short tail of end tokens; one batch in `long_every` fills a large canvas."""
        longest = max(map(len, batch))
        draw = int(torch.randint(0, self.config["long_every"], (), generator=generator))
        reach = self.config["longest"] - longest if draw == 0 else 12
        return longest + int(torch.randint(1, reach, (), generator=generator))

    def loss(self, model: LLaDA, batch: list[Example], step: int) -> Tensor:
        """Two streams every n-th step, for the n of `streams` that holds from its first step on."""
        generator = torch.Generator().manual_seed(self.seed * 10**9 + step)
        every = next(n for first, n in reversed(self.config["streams"]) if step >= first)
        if every and step % every == 0:
            return self.streams_loss(model, batch[: len(batch) // 2], generator)
        return self.canvas_loss(model, batch, generator)

    def streams_loss(
        self, model: LLaDA, batch: list[Example], generator: torch.Generator
    ) -> Tensor:
        """Mean loss of a masked token given the true text left of its block."""
        tokens, start, stop = canvases(batch, max(map(len, batch)), self.end)
        streams = two_streams(tokens, start, stop, self.mask, generator)
        shown, position, attend, asked = (part.to(model.device) for part in streams)
        first = 2 * tokens.shape[1] - shown.shape[1]
        hidden = model.encode(shown, position, attend)[:, tokens.shape[1] :]
        logits = model.head(hidden[asked[:, first:]]).float()
        return F.cross_entropy(logits, tokens.to(model.device)[asked])

    def canvas_loss(self, model: LLaDA, batch: list[Example], generator: torch.Generator) -> Tensor:
        """Mean over the batch of the weighted loss per answer token."""
        length = self.length(batch, generator)
        quarter = max(1, len(batch) * min(length, 96) // (4 * length))
        pairs = [example for example in batch[:quarter] for _ in range(2)]
        rows = pairs + batch[-2 * quarter :]
        tokens, start, stop = canvases(rows, length, self.end)
        place, half = torch.arange(length), 2 * quarter
        uniform = uniform_masks(place, start[:half], generator)
        blocks = block_masks(place, start[half:], stop[half:], generator)
        masked, weight = (torch.cat(parts) for parts in zip(uniform, blocks, strict=True))
        weight = weight * torch.where(place >= stop, self.config["tail_weight"], 1.0)
        weight = weight / (stop - start) / len(rows)
        asked = masked & (weight > 0)
        device = model.device
        shown = tokens.masked_fill(masked, self.mask).to(device)
        hidden = model.encode(shown, place.expand_as(tokens).to(device))
        logits = model.head(hidden[asked.to(device)]).float()
        loss = F.cross_entropy(logits, tokens[asked].to(device), reduction="none")
        return (loss * weight[asked].to(device)).sum()

    def answer(self, model: LLaDA, questions: list[list[int]]) -> list[list[int]]:
        return decode(model, questions)


def decode(
    model: LLaDA, questions: list[list[int]], canvas: int = 64, block: int = 32
) -> list[list[int]]:
    """Greedy answers: block by block, each step commits the surest position of the open block.

    Plain on purpose and independent of the decoding loop, which it can be compared with.
    """
    longest = max(map(len, questions))
    tokens = torch.full((len(questions), longest + canvas), model.eos_ids[0])
    for row, question in enumerate(questions):
        tokens[row, : len(question)] = torch.tensor(question)
    start = torch.tensor([[len(question)] for question in questions])
    place = torch.arange(longest + canvas)
    tokens = tokens.masked_fill((place >= start) & (place < start + canvas), model.mask_id)
    tokens, start, place = (x.to(model.device) for x in (tokens, start, place))
    attend = (place < start + canvas)[:, None, None]
    rows = torch.arange(len(questions), device=model.device)
    for step in range(canvas):
        lo = start + step // block * block
        logits = model.head(model.encode(tokens, place.expand_as(tokens), attend)).float()
        logits[..., model.mask_id] = -torch.inf
        prob, token = logits.softmax(-1).max(-1)
        open_ = (tokens == model.mask_id) & (place >= lo) & (place < lo + block)
        at = prob.masked_fill(~open_, -1).argmax(-1)
        tokens[rows, at] = token[rows, at]
    return [tokens[i, len(q) : len(q) + canvas].tolist() for i, q in enumerate(questions)]


if __name__ == "__main__":
    main(MaskedDiffusion, __doc__)
