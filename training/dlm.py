"""Train the embedded diffusion language model with the masked-diffusion objective of LLaDA.

    python -m training.dlm --config training/configs/tiny.json --run runs/tiny

Canvas steps follow LLaDA (arXiv 2502.09992): a share t of the answer and of its tail of end tokens
is masked, every masked answer token weighs 1/t, the question is never masked. Each answer comes
twice, with complementary masks. The other half of the batch masks one block partly, digits more
than what stands around them, and everything right of it: what decoding block by block meets.

Two-stream steps (arXiv 2503.09573) ask for nearly every token of an answer at once, each given the
true text to its left. A random mask seldom hides the result of an equation and shows all of its
operands, so these steps are what makes arithmetic converge within an hour on one core. `streams`
in the configuration says when they happen: [from this step on, every n-th step (0: none)].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.models.config import Config
from dlmdecode.models.families import family_of
from dlmdecode.models.transformer import Transformer
from training.data import Example
from training.initial import begin_with, initial_weights
from training.loop import main
from training.masks import block_masks, canvases, digit_ids, two_streams, uniform_masks


class MaskedDiffusion:
    """The objective: `loss(model, batch, step)`."""

    def __init__(self, config: dict[str, Any], tokenizer: Any):
        self.end, self.mask = tokenizer.eos_token_id, tokenizer.mask_token_id
        self.config, self.seed, self.tokenizer = config, config["seed"], tokenizer
        self.digits = digit_ids(tokenizer)

    def build(self) -> Transformer:
        """Random weights, or those of `initial`, a checkpoint with as many layers or fewer."""
        torch.manual_seed(self.seed)
        described = Config.of(self.config["model"])
        model = family_of(described)(described)
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                deep = (2 * model.num_layers) ** -0.5 if "blocks" in name and "out" in name else 1
                torch.nn.init.normal_(weight, std=0.02 if "wte" in name else deep * 0.06)
        if "initial" in self.config:
            given = initial_weights(self.config["initial"], self.tokenizer)
            for name in begin_with(model, given):
                if "out" in name or name.endswith("bias"):
                    torch.nn.init.zeros_(model.get_parameter(name))  # no effect at first
        model.mask_id, model.eos_ids = self.mask, (self.end,)
        return model

    def length(self, batch: list[Example], generator: torch.Generator) -> int:
        """Mostly a short tail of end tokens; one batch in `long_every` fills a large canvas."""
        longest = max(map(len, batch))
        draw = int(torch.randint(0, self.config["long_every"], (), generator=generator))
        reach = self.config["longest"] - longest if draw == 0 else 12
        return longest + int(torch.randint(1, reach, (), generator=generator))

    def loss(self, model: Transformer, batch: list[Example], step: int) -> Tensor:
        """Two streams every n-th step, for the n of `streams` that holds from its first step on."""
        generator = torch.Generator().manual_seed(self.seed * 10**9 + step)
        every = next(n for first, n in reversed(self.config["streams"]) if step >= first)
        if every and step % every == 0:
            return self.streams_loss(model, batch[: len(batch) // 2], generator)
        return self.canvas_loss(model, batch, generator)

    def streams_loss(
        self, model: Transformer, batch: list[Example], generator: torch.Generator
    ) -> Tensor:
        """Mean loss of a masked token given the true text left of its block."""
        tokens, start, stop = canvases(batch, max(map(len, batch)), self.end)
        streams = two_streams(tokens, start, stop, self.mask, generator, model.shift)
        shown, position, attend, asked = (part.to(model.device) for part in streams)
        first = 2 * tokens.shape[1] - shown.shape[1]
        hidden = model.encode(shown, position, attend)[:, tokens.shape[1] :]
        logits = model.head(hidden[asked[:, first:]]).float()
        return F.cross_entropy(logits, tokens.roll(-model.shift, 1).to(model.device)[asked])

    def canvas_loss(
        self, model: Transformer, batch: list[Example], generator: torch.Generator
    ) -> Tensor:
        """Mean over the batch of the weighted loss per answer token."""
        length = self.length(batch, generator)
        quarter = max(1, len(batch) * min(length, 96) // (4 * length))
        pairs = [example for example in batch[:quarter] for _ in range(2)]
        rows = pairs + batch[-2 * quarter :]
        tokens, start, stop = canvases(rows, length, self.end)
        place, half = torch.arange(length), 2 * quarter
        uniform = uniform_masks(place, start[:half], generator)
        last = torch.isin(tokens[half:], self.digits)
        blocks = block_masks(place, start[half:], stop[half:], last, generator)
        masked, weight = (torch.cat(parts) for parts in zip(uniform, blocks, strict=True))
        weight = weight * torch.where(place >= stop, self.config["tail_weight"], 1.0)
        weight = weight / (stop - start) / len(rows)
        asked = masked & (weight > 0)
        device = model.device
        shown = tokens.masked_fill(masked, self.mask).to(device)
        hidden = model.encode(shown, place.expand_as(tokens).to(device)).roll(model.shift, 1)
        logits = model.head(hidden[asked.to(device)]).float()
        loss = F.cross_entropy(logits, tokens[asked].to(device), reduction="none")
        return (loss * weight[asked].to(device)).sum()

    def answer(self, model: Transformer, questions: list[list[int]]) -> list[list[int]]:
        return decode(model, questions)


def decode(
    model: Transformer, questions: list[list[int]], canvas: int = 128, block: int = 32
) -> list[list[int]]:
    """Greedy answers: block by block, each step commits the best position of the open block.

    A row is finished after the block with its first end token. `block` must divide `canvas`. Plain
    on purpose and independent of the package's decoding loop, which it can be compared with.
    """
    longest = max(map(len, questions))
    tokens = torch.full((len(questions), longest + canvas), model.eos_ids[0])
    for row, question in enumerate(questions):
        tokens[row, : len(question)] = torch.tensor(question)
    start = torch.tensor([[len(question)] for question in questions])
    place = torch.arange(longest + canvas)
    tokens = tokens.masked_fill((place >= start) & (place < start + canvas), model.mask_id)
    tokens, start = tokens.to(model.device), start.to(model.device)
    unfinished = torch.arange(len(questions), device=model.device)
    for lo in range(0, canvas, block):
        if not len(unfinished):
            break
        at = start[unfinished] + torch.arange(lo, lo + block, device=model.device)
        tokens[unfinished] = fill(model, tokens[unfinished], at, canvas - lo)
        written = tokens[unfinished[:, None], at]
        unfinished = unfinished[(written != model.eos_ids[0]).all(1)]
    tokens = tokens.masked_fill(tokens == model.mask_id, model.eos_ids[0])
    return [tokens[i, len(q) : len(q) + canvas].tolist() for i, q in enumerate(questions)]


def fill(model: Transformer, tokens: Tensor, at: Tensor, reach: int) -> Tensor:
    """`tokens` (N, L), its block `at` (N, K) filled, seeing `reach` positions from there on."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    attend = (place < at[:, :1] + reach)[:, None, None]
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    for _ in range(at.shape[1]):
        hidden = model.encode(tokens, place.expand_as(tokens), attend)
        logits = model.head(hidden[rows, at - model.shift]).float()
        logits[..., model.mask_id] = -torch.inf
        prob, token = logits.softmax(-1).max(-1)
        prob = prob.masked_fill(tokens[rows, at] != model.mask_id, -1)
        best = prob.argmax(-1, keepdim=True)
        tokens.scatter_(1, at.gather(1, best), token.gather(1, best))
    return tokens


if __name__ == "__main__":
    main(MaskedDiffusion, __doc__)
