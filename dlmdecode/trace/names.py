"""The text of token ids, each told once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Names:
    """What a trace says of token ids. Without a tokenizer their text is their numbers."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.told: set[int] = set()

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids)) if self.tokenizer is None else self.tokenizer.decode(ids)

    def new(self, ids: Iterable[int]) -> dict[int, str]:
        """The text of those `ids` that were not told yet."""
        new = set(ids) - self.told
        self.told |= new
        return {id: self.decode([id]) for id in sorted(new)}
