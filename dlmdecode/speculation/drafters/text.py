"""A drafter that reads the text as it grows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from dlmdecode.checks import plain, require
from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.tree import Draft


class TextDrafter(Drafter):
    """Is given each token of a text once. A subclass has `begin`, `grow` and `guess`."""

    copyable = True

    def __init__(self) -> None:
        self.ids: list[int] = []  # what it has read
        self.begin()

    def reset(self) -> None:
        self.ids = []
        self.begin()

    def draft(self, prefix: list[int], length: int) -> list[int] | Draft:
        if prefix[: len(self.ids)] != self.ids:  # re-tokenised, its last ids are others
            self.ids = []
            self.begin()
        self.grow(prefix[len(self.ids) :])
        self.ids = list(prefix)
        return self.guess(length)

    @abstractmethod
    def begin(self) -> None:
        """A new text begins."""

    @abstractmethod
    def grow(self, ids: list[int]) -> None:
        """The text goes on with `ids`."""

    @abstractmethod
    def guess(self, length: int) -> list[int] | Draft:
        """What may follow the text; see `Drafter.draft`."""


def token_ids(texts: Iterable[Any]) -> Iterator[list[int]]:
    """Each text's ids as Python's numbers.

    Raises:
        ValueError: one that is no list, tuple, array or tensor of whole numbers from 0 on.
    """
    for text in texts:
        rows = text.tolist() if isinstance(text, (np.ndarray, Tensor)) else text
        ids: list[Any] = list(map(plain, rows)) if isinstance(rows, (list, tuple)) else [None]
        fits = all(type(one) is int and one >= 0 for one in ids)
        require(fits, "texts", text, "give token ids, a list for each text")
        yield ids
