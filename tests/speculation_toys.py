"""Small verifiers, tokenizers and drafters for the speculation tests."""

import copy
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import dlmdecode
from dlmdecode.speculation import Drafter

MODELS = Path(__file__).parent / "golden" / "models"
TEXT = (
    "Tom has twelve apples and Anna has three pears. She gives him one, so he has thirteen.",
    "A bag of stones, a box of shells and the keys of a house; how many things are there now?",
)


@cache
def micro(family):
    return dlmdecode.load(MODELS / f"{family}-micro", device="cpu")


def llama(vocab_size=320, seed=0, eos=(318,), spread=0.3, **config):
    """A random Llama whose greedy text varies; float32, on the CPU."""
    torch.manual_seed(seed)
    settings = dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=spread,
    )
    end = {"bos_token_id": None, "eos_token_id": list(eos) or None, "pad_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **settings | end | config)).eval()


def byte_level(vocab_size, seed_text=TEXT):
    """A byte-level BPE tokenizer; the smaller one spells what the larger one has in a piece."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(seed_text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def with_tokenizer(model, tokenizer):
    """A copy of a micro model, weights shared, that reads and writes through `tokenizer`."""
    other = copy.copy(model)
    other.tokenizer, other.eos_ids = tokenizer, (tokenizer.eos_token_id,)
    return other


class Recalling(Drafter):
    """Drafts a known text, with a wrong token at every `wrong`-th position; 0: never."""

    def __init__(self, texts, wrong=0):
        self.texts, self.wrong = texts, wrong

    def draft(self, prefix, length):
        text = next(t for t in self.texts if t[: len(prefix)] == prefix)
        drafted = list(text[len(prefix) : len(prefix) + length])
        for i in range(len(drafted)):
            if self.wrong and (len(prefix) + i) % self.wrong == 0:
                drafted[i] = (drafted[i] + 1) % 300
        return drafted
