"""Small models and tokenizers for tests: the recorded micro checkpoints and what goes with them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

import dlmdecode
from dlmdecode.models.transformer import Transformer

MODELS = Path(__file__).parent / "golden" / "models"
FAMILIES = ("llada", "dream")  # of full attention
FULL_ATTENTION = (*FAMILIES, "illada", "llada-moe")  # all of them: what differs is the network
BLOCK_CAUSAL = ("sdar", "dream-reasoner", "fast-dllm-v2", "llada2-moe", "stable-diffcoder")
BLOCKS = {"llada2-moe": 8}  # of micro checkpoints recorded with another block than the published
MASK, EOS, VOCAB = 319, 318, 320
CHAT = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}<assistant>"


@cache
def micro(family: str) -> Transformer:
    """The recorded random-weight checkpoint of a family, one of those above."""
    model = dlmdecode.load(MODELS / f"{family}-micro", device="cpu")
    model.block_length = BLOCKS.get(family, model.block_length)
    return model


def altered(model: Transformer, edit) -> Transformer:
    """A copy of the model, weights shared, whose logits pass through `edit(logits)`."""
    other = copy.copy(model)
    other.head = lambda hidden: edit(model.head(hidden))  # type: ignore[method-assign]
    return other


def fond_of(model: Transformer, token: int, amount: float) -> Transformer:
    """A copy of the model that likes `token` better by `amount`."""
    bias = torch.zeros(model.vocab_size)
    bias[token] = amount
    return altered(model, lambda logits: logits + bias)


@contextmanager
def counted_forwards(model: Transformer) -> Iterator[SimpleNamespace]:
    """Counts the forwards made on `model` inside the block, in `.calls`."""
    count = SimpleNamespace(calls=0)

    def encode(*args, **kwargs):
        count.calls += 1
        return type(model).encode(model, *args, **kwargs)

    model.encode = encode  # type: ignore[method-assign]
    try:
        yield count
    finally:
        del model.encode


class LogitsModule(nn.Module):
    """A foreign module around a model: `module(tokens, attention_mask=…).logits`, and a config."""

    def __init__(self, model: Transformer, edit=lambda logits: logits, named: bool = True):
        super().__init__()
        self.model, self.edit = model, edit
        if named:
            self.config = SimpleNamespace(mask_token_id=MASK, eos_token_id=EOS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None):
        return SimpleNamespace(logits=self.edit(self.model(input_ids, attention_mask)))


class ScriptedEngine:
    """Stands for an engine: `generate(model, [prompt], sampler, **options)` gives each result."""

    def __init__(self, generate, model, sampler, *, batch_size, **options):
        self.answer = lambda prompt: generate(model, [prompt], sampler, **options)

    def run(self, prompts):
        for index, prompt in enumerate(prompts):
            out = self.answer(prompt)
            yield SimpleNamespace(index=index, result=lambda out=out: out)


def prompts(*lengths: int, seed: int = 0) -> list[Tensor]:
    """Random prompts of these lengths, without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 310, (length,), generator=generator) for length in lengths]


def word_tokenizer() -> Tokenizer:
    """Words `w0` … `w309` are ids 0 … 309; <assistant> 317, end 318, mask 319."""
    vocabulary = {f"w{i}": i for i in range(310)}
    vocabulary |= {f"<unused{i}>": i for i in range(310, 315)}
    vocabulary |= {"<unk>": 315, "<user>": 316, "<assistant>": 317}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|mdm_mask|>"])
    return tokenizer


def give_llada_tokenizer(folder: Path) -> None:
    """Tokenizer files in the form of the LLaDA checkpoints: tokenizer.json and its config."""
    word_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@cache
def talking() -> Transformer:
    """The LLaDA micro model with the word tokenizer."""
    from transformers import PreTrainedTokenizerFast

    model = copy.copy(micro("llada"))
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    model.tokenizer.chat_template = CHAT
    return model
