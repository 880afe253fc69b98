"""Which ids of a checkpoint are special: mask and end of text, from its files and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dlmdecode.models.config import Config

# Names of added tokens that families share: of LLaDA; iLLaDA; Dream and LLaDA-MoE.
MASKS = ("<|mdm_mask|>", "<[MASK]>", "<|mask|>")
# Of LLaDA; Dream; LLaDA-MoE and LLaDA2; DiffuCoder, whose texts trail off in it.
TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|role_end|>", "<|dlm_pad|>")


def special_ids(
    config: Config,
    generation: Config,
    tokenizer: Any,
    vocab_size: int,
    mask_tokens: Iterable[str] = MASKS,
    end_tokens: Iterable[str] = TURN_ENDS,
    published_mask: int = -1,
) -> tuple[int, tuple[int, ...]]:
    """Mask id and end-of-text ids: configurations, then tokenizer; all within the vocabulary.

    The ids that the configurations give for padding and beginning are checked, not used.

    Args:
        mask_tokens: names that the tokenizer may have for the mask, the likeliest first.
        end_tokens: names that it may have for the end of a turn; all of them are ends.
        published_mask: the mask where neither says; below 0 is none.

    Raises:
        ValueError: an id that is none, naming its file and field; no mask; no end of text.
    """
    folder, files, named = config.path.parent, (config, generation), named_ids(tokenizer)
    for file in files:
        for field in ("pad_token_id", "bos_token_id"):
            ids_of(file, field, vocab_size)
    masks = [id for file in files for id in ids_of(file, "mask_token_id", vocab_size, one=True)]
    masks += [named[name] for name in ("mask_token", *mask_tokens) if name in named]
    if not masks and 0 <= published_mask < vocab_size:
        masks = [published_mask]
    if not masks:
        raise ValueError(f"{folder}: neither config.json nor the tokenizer names a mask token")
    eos = [id for file in files for id in ids_of(file, "eos_token_id", vocab_size)]
    eos += [named[name] for name in ("eos_token", *end_tokens) if name in named]
    if not eos:
        raise ValueError(f"{folder}: neither config.json nor the tokenizer names an eos token")
    mask_id, eos_ids = masks[0], tuple(dict.fromkeys(eos))
    for id in (mask_id, *eos_ids):
        if id >= vocab_size:
            known = f"the model's ids are 0 to {vocab_size - 1}"
            raise ValueError(f"{folder}: the tokenizer gives a special token the id {id}; {known}")
    if mask_id in eos_ids:
        raise ValueError(f"{folder}: id {mask_id} is both mask_token_id and eos_token_id")
    return mask_id, eos_ids


def ids_of(config: Config, name: str, vocab_size: int, one: bool = False) -> list[int]:
    """The ids in a field: none, one, or a list of them unless `one`."""
    value = config.get(name)
    ids = value if isinstance(value, list) and not one else [] if value is None else [value]
    fits = all(type(id) is int and 0 <= id < vocab_size for id in ids)
    config.require(fits, name, f"ids of this vocabulary are 0 to {vocab_size - 1}")
    return ids


def named_ids(tokenizer: Any) -> dict[str, int]:
    """Ids of a tokenizer's special tokens, by role and by name."""
    if tokenizer is None:
        return {}
    roles = {"mask_token": tokenizer.mask_token_id, "eos_token": tokenizer.eos_token_id}
    return tokenizer.get_added_vocab() | {role: id for role, id in roles.items() if id is not None}
