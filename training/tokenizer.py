"""The tokenizer of the embedded models: byte-level BPE whose words are whole and digits single.

python -m training.tokenizer --output runs/tokenizer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.data import texts

END, MASK = "<|endoftext|>", "<|mask|>"
PIECE = Regex(r" ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
MAX_LENGTH = 512


def train_tokenizer(
    num_problems: int = 30_000, vocab_size: int = 1536, max_length: int = MAX_LENGTH
) -> PreTrainedTokenizerFast:
    """Train on `num_problems` training texts; any other text falls back to bytes.

    A digit is always a token of its own (" 1" and "1" differ), and a chat is its contents one after
    the other, so that a single user message is the bare question.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(PIECE, "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map("".join, texts(0, num_problems)), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        mask_token=MASK,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT
    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=train_tokenizer.__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=1536)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer(vocab_size=arguments.vocab_size)
    tokenizer.save_pretrained(arguments.output)
    print(f"{len(tokenizer)} tokens in {arguments.output}")


if __name__ == "__main__":
    main()
