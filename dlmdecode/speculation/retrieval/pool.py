"""Where the n-grams of texts stand, to read what followed them."""

from __future__ import annotations

from collections.abc import Sequence


class Pool:
    """The places of n-grams of up to `longest` tokens.

    A place is known once a token follows it. An n-gram has none that reaches over two texts.
    """

    def __init__(self, longest: int):
        self.longest = longest
        self.ids: list[int] = []
        self.begin = 0  # of the text that grows
        self.places: dict[tuple[int, ...], list[int]] = {}

    def start(self) -> None:
        """Another text begins."""
        self.begin = len(self.ids)

    def add(self, ids: Sequence[int]) -> None:
        """Let the text grow by `ids`."""
        for token in ids:
            end = len(self.ids)
            for size in range(1, min(self.longest, end - self.begin) + 1):
                self.places.setdefault(tuple(self.ids[end - size :]), []).append(end)
            self.ids.append(token)

    def after(self, end: Sequence[int], length: int, most: int = 1) -> list[list[int]]:
        """What followed the longest known end of `end`: up to `most` texts of `length` tokens,
        the latest first; then what followed shorter ones."""
        found: dict[tuple[int, ...], None] = {}
        for size in range(min(self.longest, len(end)), 0, -1):
            for place in reversed(self.places.get(tuple(end[-size:]), ())):
                found[tuple(self.ids[place : place + length])] = None
                if len(found) == most:
                    return list(map(list, found))
        return list(map(list, found))
