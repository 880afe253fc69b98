"""A drafter that reads the text as it grows."""

from __future__ import annotations

from abc import abstractmethod

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
        if prefix[: len(self.ids)] != self.ids:  # another text, or one that was cut
            self.reset()
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
