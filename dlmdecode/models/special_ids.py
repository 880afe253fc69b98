"""Which ids of a checkpoint are special: mask and end of text, from its files and its tokenizer."""

from __future__ import annotations

from typing import Any

from dlmdecode.models.config import Config

# Names of added tokens, for checkpoints that give no id: of LLaDA; iLLaDA; Dream and LLaDA-MoE.
MASKS = ("<|mdm_mask|>", "<[MASK]>", "<|mask|>")
# Of LLaDA; Dream; LLaDA-MoE and LLaDA2; DiffuCoder, whose texts trail off in it.
TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|role_end|>", "<|dlm_pad|>")


def special_ids(
    config: Config, generation: Config, tokenizer: Any, vocab_size: int
) -> tuple[int, tuple[int, ...]]:
    """Mask id and end-of-text ids: configurations, then tokenizer; all within the vocabulary.

    The ids that the configurations give for padding and beginning are checked, not used.

    Raises:
        ValueError: an id that is none, naming its file and field; no mask; no end of text.
    """
    files = (config, generation)
    for file in files:
        for name in ("pad_token_id", "bos_token_id"):
            ids_of(file, name, vocab_size)
    named = tokenizer_ids(tokenizer, vocab_size)
    masks = [id for file in files for id in ids_of(file, "mask_token_id", vocab_size, most=1)]
    masks += [id for name, id in named if name in ("mask_token", *MASKS)]
    if not masks:
        raise ValueError(
            f"{config.path.parent}: neither config.json nor the tokenizer names a mask token"
        )
    eos = [id for file in files for id in ids_of(file, "eos_token_id", vocab_size)]
    eos += [id for name, id in named if name in ("eos_token", *TURN_ENDS)]
    if not eos:
        raise ValueError(
            f"{config.path.parent}: neither config.json nor the tokenizer names an eos token"
        )
    if masks[0] in eos:
        raise ValueError(
            f"{config.path.parent}: id {masks[0]} is both mask_token_id and eos_token_id"
        )
    return masks[0], tuple(dict.fromkeys(eos))


def ids_of(config: Config, name: str, vocab_size: int, most: int | None = None) -> list[int]:
    """The ids in a field: none, one, or a list of them where `most` allows."""
    value = config.get(name)
    ids = value if isinstance(value, list) and most is None else [] if value is None else [value]
    fits = all(type(id) is int and 0 <= id < vocab_size for id in ids)
    config.require(fits, name, f"ids of this vocabulary are 0 to {vocab_size - 1}")
    return ids


def tokenizer_ids(tokenizer: Any, vocab_size: int) -> list[tuple[str, int]]:
    """Role or name, and id, of a tokenizer's special tokens, in the order of preference."""
    if tokenizer is None:
        return []
    added = tokenizer.get_added_vocab()
    found = [("mask_token", tokenizer.mask_token_id), ("eos_token", tokenizer.eos_token_id)]
    found += [(name, added.get(name)) for name in (*MASKS, *TURN_ENDS)]
    for name, id in found:
        if id is not None and not 0 <= id < vocab_size:
            raise ValueError(
                f"the tokenizer gives {name} the id {id}, but the model's ids are 0 to "
                f"{vocab_size - 1}"
            )
    return [(name, id) for name, id in found if id is not None]
