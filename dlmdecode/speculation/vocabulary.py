"""Ids of the drafter and ids of the verifier: the same, mapped, or told through the text.

Whatever the map, the text is the verifier's: a bad map costs acceptance, never correctness. Ids
without counterpart are left out, never clamped to a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from dlmdecode.checks import Natural, conform, require
from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.verifier.verifier import Verifier

FIX = (
    "give vocabulary='string_match' (same bytes, same token), 'retokenize' (through the text), or "
    "a dict from drafter ids to verifier ids"
)
LOOKBEHIND = 8  # verifier tokens that a re-tokenised draft is joined to
# A drafter's tokenizer, the verifier's that was found to agree with it, and their lengths then:
# large vocabularies are not read again for each text.
AGREED: WeakKeyDictionary[Any, tuple[ref[Any], tuple[int, int]]] = WeakKeyDictionary()


@runtime_checkable
class Vocabulary(Protocol):
    """How two vocabularies meet."""

    def allowed(self, size: int) -> Tensor:
        """(size,) bool: drafter ids with a counterpart; drafts end before any other."""
        ...

    def to_drafter(self, ids: list[int]) -> list[int]:
        """The verifier's text as drafter ids."""
        ...

    def to_verifier(self, path: list[int], prefix: list[int]) -> list[int]:
        """A draft as verifier ids, after the verifier's text `prefix`."""
        ...


class SameIds:
    """One tokenizer; embeddings may be padded to different sizes (Dream 152064, Qwen 151936).

    Args:
        drafter_size, verifier_size: rows of the embedding matrices, None if unbounded.
        mask_id: the drafter's mask, which is no text.
    """

    def __init__(self, drafter_size: int | None, verifier_size: int, mask_id: int | None = None):
        self.drafter_size, self.verifier_size, self.mask_id = drafter_size, verifier_size, mask_id

    def allowed(self, size: int) -> Tensor:
        return torch.arange(size, device="cpu") < self.verifier_size

    def to_drafter(self, ids: list[int]) -> list[int]:
        size, mask = self.drafter_size, self.mask_id
        if size is None and mask is None:
            return ids
        return [i for i in ids if (size is None or i < size) and i != mask]

    def to_verifier(self, path: list[int], prefix: list[int]) -> list[int]:
        del prefix
        return list(takewhile(lambda i: 0 <= i < self.verifier_size, path))

    def holds(self, ids: Sequence[int]) -> bool:
        """Whether the verifier has all of these ids."""
        return not ids or min(ids) >= 0 and max(ids) < self.verifier_size


class TokenMap:
    """Token by token.

    Args:
        pairs: drafter id -> verifier id; drafts hold only these.
        spelled: verifier id -> drafter ids of tokens without a counterpart; others are left out.
    """

    def __init__(self, pairs: Mapping[int, int], spelled: Mapping[int, list[int]] | None = None):
        self.pairs = dict(pairs)
        self.back = {own: [drafted] for drafted, own in reversed(self.pairs.items())}
        self.back = dict(spelled or {}) | self.back

    def allowed(self, size: int) -> Tensor:
        mask = torch.zeros(size, dtype=torch.bool, device="cpu")
        mask[[i for i in self.pairs if i < size]] = True
        return mask

    def to_drafter(self, ids: list[int]) -> list[int]:
        return [known for i in ids for known in self.back.get(i, ())]

    def to_verifier(self, path: list[int], prefix: list[int]) -> list[int]:
        del prefix
        return [self.pairs[i] for i in takewhile(self.pairs.__contains__, path)]


class Retokenize:
    """Through the text: each side reads it with its own tokenizer.

    A draft is joined to the last tokens of the verifier's text before it is split, so that spaces
    and merges at the boundary come out as they would in one piece.
    """

    def __init__(
        self,
        drafter: Any,
        verifier: Any,
        drafter_eos: tuple[int, ...],
        verifier_eos: tuple[int, ...],
    ):
        self.drafter, self.verifier = drafter, verifier
        self.drafter_eos, self.verifier_eos = drafter_eos, verifier_eos

    def allowed(self, size: int) -> Tensor:
        return torch.arange(size, device="cpu") < len(self.drafter)

    def to_drafter(self, ids: list[int]) -> list[int]:
        text = self.verifier.decode(ids, skip_special_tokens=True)
        return self.drafter(text, add_special_tokens=False)["input_ids"]

    def to_verifier(self, path: list[int], prefix: list[int]) -> list[int]:
        ended = bool(path) and path[-1] in self.drafter_eos
        text = self.drafter.decode(path, skip_special_tokens=True).rstrip("\ufffd")
        close = list(self.verifier_eos[:1]) if ended else []
        tail = prefix[-LOOKBEHIND:]
        before = self.verifier.decode(tail)
        joined = self.verifier(before + text, add_special_tokens=False)["input_ids"]
        if joined[: len(tail)] == tail:
            return joined[len(tail) :] + close
        return self.verifier(text, add_special_tokens=False)["input_ids"] + close


def match(kind: Any, drafter: Drafter, verifier: Verifier) -> Vocabulary:
    """The map between the ids of a drafter and those of a verifier.

    Args:
        kind: "auto" passes identical vocabularies through; "identity", "string_match",
            "retokenize", a dict {drafter id: verifier id}, or a `Vocabulary`.

    Raises:
        ValueError: vocabularies that differ, with the first difference; no tokenizer to map by.
    """
    same = SameIds(drafter.vocab_size, verifier.vocab_size, drafter.mask_id)
    if isinstance(kind, Mapping):
        require(bool(kind), "vocabulary", kind, "an empty map drafts nothing")
        sizes = {"drafter": drafter.vocab_size, "verifier": verifier.vocab_size}
        columns = zip(*kind.items(), strict=True)
        ids = [ids_of(one, *side) for one, side in zip(columns, sizes.items(), strict=True)]
        return TokenMap(dict(zip(*ids, strict=True)))
    if isinstance(kind, Vocabulary):
        return kind
    known = ("auto", "identity", "string_match", "retokenize")
    require(isinstance(kind, str) and kind in known, "vocabulary", kind, f"give one of {known}")
    if kind == "identity":
        return same
    if kind == "auto":
        reason = difference(drafter.tokenizer, verifier.tokenizer, same)
        require(reason is None, "vocabulary", "auto", f"{reason}; {FIX}")
        return same
    both = drafter.tokenizer is not None and verifier.tokenizer is not None
    require(both, "vocabulary", kind, "it needs the tokenizers of both models")
    pair = (drafter.tokenizer, verifier.tokenizer, drafter.eos_ids, verifier.eos_ids)
    return Retokenize(*pair) if kind == "retokenize" else string_match(*pair)


def ids_of(given: Iterable[Any], side: str, size: int | None) -> list[int]:
    """One side's ids of a map, as Python's numbers."""
    ids = [conform("vocabulary", one, Natural) for one in given]
    fits = size is None or max(ids) < size
    require(fits, "vocabulary", max(ids), f"the {side}'s ids are 0..{(size or 1) - 1}")
    return ids


def difference(drafter: Any, verifier: Any, sizes: SameIds) -> str | None:
    """Why ids of the two do not mean the same; None if they do."""
    if drafter is None and verifier is None:
        if sizes.drafter_size in (None, sizes.verifier_size):
            return None
        return (
            f"the drafter has {sizes.drafter_size} ids, the verifier {sizes.verifier_size}, and "
            "neither has a tokenizer to tell if they agree (if so, give vocabulary='identity')"
        )
    if drafter is None:
        return None if sizes.drafter_size is None else "the drafter has no tokenizer"
    if verifier is None:
        return "the verifier has no tokenizer"
    pair = (ref(verifier), (len(drafter), len(verifier)))
    if AGREED.get(drafter) == pair:
        return None
    special = set(drafter.all_special_tokens) | set(verifier.all_special_tokens)
    one, other = (
        {t: i for t, i in side.get_vocab().items() if t not in special}
        for side in (drafter, verifier)
    )
    token = next((t for t, i in one.items() if other.get(t) != i), None)
    if token is None:
        AGREED[drafter] = pair
        return None
    return (
        f"the tokenizers differ: {token!r} is {one[token]} for the drafter and "
        f"{other.get(token, 'unknown')} for the verifier"
    )


def string_match(
    drafter: Any, verifier: Any, drafter_eos: tuple[int, ...], verifier_eos: tuple[int, ...]
) -> TokenMap:
    """Tokens with the same bytes, and end with end.

    Raises:
        ValueError: no token in common.
    """
    spelling, own = spellings(drafter), spellings(verifier)
    ids = {text: i for i, text in own.items()}
    pairs = {i: ids[text] for i, text in spelling.items() if text in ids}
    require(bool(pairs), "vocabulary", "string_match", "the tokenizers share no token; retokenize")
    pairs |= dict.fromkeys(drafter_eos, verifier_eos[0]) if verifier_eos else {}
    mapped = set(pairs.values())
    lost = {i: text for i, text in own.items() if i not in mapped}
    texts = [text.decode("utf-8", "ignore") for text in lost.values()]
    split = drafter(texts, add_special_tokens=False)["input_ids"] if texts else []
    return TokenMap(pairs, dict(zip(lost, split, strict=True)))


def spellings(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each token that is text, for byte-level and for sentencepiece vocabularies."""
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    vocabulary = {t: i for t, i in tokenizer.get_vocab().items() if t not in special}
    byte_level = any(t.startswith("Ġ") for t in vocabulary)
    spell = byte_level_bytes if byte_level else sentencepiece_bytes
    pairs = ((i, spell(t)) for t, i in vocabulary.items())
    return {i: text for i, text in pairs if text}


def sentencepiece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def byte_level_bytes(token: str) -> bytes | None:
    """GPT-2's printable stand-ins for bytes, undone; None for a token outside that alphabet."""
    values = [BYTE_OF.get(character) for character in token]
    return None if None in values else bytes(values)  # type: ignore[arg-type]


def byte_alphabet() -> dict[str, int]:
    """Printable Latin-1 characters stand for themselves, the others follow from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    plain = {chr(value): value for value in printable}
    return plain | {chr(256 + index): value for index, value in enumerate(others)}


BYTE_OF = byte_alphabet()
