"""Train the embedded block-diffusion model, in the format of SDAR (arXiv 2510.06303).

    python -m training.block --config training/configs/tiny-block.json --run runs/tiny-block

The objective is that of block diffusion (arXiv 2503.09573): the clean text is followed by a noised
copy of it, a noised block sees itself and the clean text of the blocks before it, and every masked
token weighs 1/t, where t is the share of its block that is masked. Blocks are counted from the
first position on, so that the one in which the answer begins ends the question too. What a block
holds behind the end of an answer are end tokens. Digits stay masked longest, as for `training.dlm`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from dlmdecode.models.config import Config
from dlmdecode.models.protocol import block_causal
from dlmdecode.models.sdar import SDAR
from training.data import Example
from training.initial import begin_with, initial_weights
from training.loop import main
from training.masks import canvases, digit_ids

# Where a LLaDA keeps what the Qwen3 network has under another name.
FROM_LLADA = {
    "transformer.wte": "embed_tokens",
    "transformer.blocks": "layers",
    "transformer.ln_f": "norm",
    "model.transformer.ff_out": "lm_head",
    "attn_norm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_norm": "post_attention_layernorm",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}


def block_streams(
    tokens: Tensor,
    start: Tensor,
    stop: Tensor,
    last: Tensor,
    mask: int,
    block: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean text and a noised copy from the first block with an answer on.

    `tokens` (B, L), of whole blocks, hold answers from `start` to `stop` (B, 1), then end tokens.
    Each block has its own share t of masks, at least one token in expectation; tokens other than
    those of `last` (B, L) are masked less often, in each block by another factor from 0 to 1.
    Returns tokens and positions (B, S), who sees whom (B or 1, 1, S, S), and the weights (B, S - L)
    of the noised tokens: 1/t where a token is masked, else 0.
    """
    rows, length = tokens.shape
    first = int(start.min()) // block * block
    place = torch.arange(length)
    answer = (place >= start) & (place < block_end(stop, block))
    shares = torch.rand(2, rows, length // block, generator=generator)
    t, factor = shares.repeat_interleave(block, -1)
    t = torch.where(last, t, t * factor).clamp(1 / block)
    hidden = answer & (torch.rand(rows, length, generator=generator) < t)
    weight = (hidden / t)[:, first:]
    own = place[first:] // block
    before = place // block < own[:, None]
    clean = torch.cat([block_causal(place, place, block), before])
    noised = torch.cat([torch.zeros(length, len(own)).bool(), own == own[:, None]])
    both = torch.cat([tokens, tokens.masked_fill(hidden, mask)[:, first:]], 1)
    position = torch.cat([place, place[first:]]).expand_as(both)
    return both, position, torch.cat([clean, noised], 1)[None, None], weight


def block_end(stop: Any, block: int) -> Any:
    """Where the block of the last position before `stop`, a number or a tensor, ends."""
    return (stop + block - 1) // block * block


class BlockDiffusion:
    """The objective: `loss(model, batch, step)`."""

    def __init__(self, config: dict[str, Any], tokenizer: Any):
        self.end, self.mask = tokenizer.eos_token_id, tokenizer.mask_token_id
        self.config, self.seed, self.tokenizer = config, config["seed"], tokenizer
        self.block = config["model"]["block_size"]
        self.digits = digit_ids(tokenizer)

    def build(self) -> SDAR:
        """Random weights, or those of `initial`, an SDAR or a LLaDA of the same shape."""
        torch.manual_seed(self.seed)
        model = SDAR(self.config["model"])
        for weight in model.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.04)
        if "initial" in self.config:
            given = initial_weights(self.config["initial"], self.tokenizer)
            if begin_with(model, {qwen_name(name): weight for name, weight in given.items()}):
                keep_scores(model)
        model.mask_id, model.eos_ids = self.mask, (self.end,)
        return model

    def loss(self, model: SDAR, batch: list[Example], step: int) -> Tensor:
        """Mean over the batch of the weighted loss per answer token."""
        generator = torch.Generator().manual_seed(self.seed * 10**9 + step)
        length = block_end(max(map(len, batch)), self.block)
        tokens, start, stop = canvases(batch, length, self.end)
        last = torch.isin(tokens, self.digits)
        streams = block_streams(tokens, start, stop, last, self.mask, self.block, generator)
        shown, position, attend, weight = (part.to(model.device) for part in streams)
        hidden = model.encode(shown, position, attend)[:, length:]
        asked = weight > 0
        logits = model.head(hidden[asked]).float()
        first = 2 * length - shown.shape[1]
        wanted = tokens[:, first:].to(model.device)[asked]
        loss = F.cross_entropy(logits, wanted, reduction="none") * weight[asked]
        return loss.sum() / (block_end(stop, self.block) - start).sum()

    def answer(self, model: SDAR, questions: list[list[int]]) -> list[list[int]]:
        return decode(model, questions)


def load(folder: Path) -> SDAR:
    """The model of a folder that `training.export` wrote."""
    config = Config.read(folder / "config.json")
    model = SDAR(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.mask_id, model.eos_ids = config["mask_token_id"], (config["eos_token_id"],)
    return model.float().eval()


def qwen_name(name: str) -> str:
    """A LLaDA's name of a weight as the Qwen3 network has it, and a Qwen3's as it is."""
    if "transformer." not in name:
        return name
    for theirs, ours in FROM_LLADA.items():
        head, found, tail = name.rpartition(theirs + ".")
        if found and (not head or head.endswith(".")):
            name = f"{head}{ours}.{tail}"
    return name


@torch.no_grad()
def keep_scores(model: SDAR) -> None:
    """Norms of queries and keys that leave attention about as sharp as it was without them.

    The layer's input has unit variance, so that a row of weights w, scaled by the norm before it,
    gives numbers of variance |w|².
    """
    for layer in model.blocks:
        attention, scale = layer.self_attn, layer.input_layernorm.weight
        for matrix, norm in (
            (attention.q_proj, attention.q_norm),
            (attention.k_proj, attention.k_norm),
        ):
            norm.weight.fill_(float((matrix.weight * scale).square().sum(1).mean().sqrt()))


def decode(model: SDAR, questions: list[list[int]], canvas: int = 128) -> list[list[int]]:
    """Greedy answers of at least `canvas` tokens: in each block the best position of each step.

    A row is finished after the block with its first end token. Plain on purpose and independent of
    the package's decoding loop and caches, which it can be compared with.
    """
    block, end = model.block_length, model.eos_ids[0]
    length = block_end(max(map(len, questions)) + canvas, block)
    tokens = torch.full((len(questions), length), model.mask_id)
    for row, question in enumerate(questions):
        tokens[row, : len(question)] = torch.tensor(question)
    tokens = tokens.to(model.device)
    start = torch.tensor([[len(question)] for question in questions], device=model.device)
    place = torch.arange(length, device=model.device)
    for lo in range(int(start.min()) // block * block, length, block):
        ended = ((tokens == end) & (place >= start)).any(1)
        rows = (~ended & (start[:, 0] < lo + block)).nonzero()[:, 0]
        if ended.all():
            break
        tokens[rows, : lo + block] = fill(model, tokens[rows, : lo + block], block)
    tokens = tokens.masked_fill(tokens == model.mask_id, end)
    return [tokens[i, len(q) : len(q) + canvas].tolist() for i, q in enumerate(questions)]


def fill(model: SDAR, tokens: Tensor, block: int) -> Tensor:
    """`tokens` (N, L) with the masks of their last block filled, one in each step."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    attend = block_causal(place, place, block)[None, None]
    while (masked := tokens[:, -block:] == model.mask_id).any():
        hidden = model.encode(tokens, place.expand_as(tokens), attend)
        logits = model.head(hidden[:, -block:]).float()
        logits[..., model.mask_id] = -torch.inf
        prob, token = logits.softmax(-1).max(-1)
        best = prob.masked_fill(~masked, -1).argmax(-1, keepdim=True)
        kept = torch.where(
            masked.gather(1, best), token.gather(1, best), tokens[:, -block:].gather(1, best)
        )
        tokens[:, -block:] = tokens[:, -block:].scatter(1, best, kept)
    return tokens


if __name__ == "__main__":
    main(BlockDiffusion, __doc__)
