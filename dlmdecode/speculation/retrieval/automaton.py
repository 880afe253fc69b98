"""A suffix automaton over a text that grows: which end of it stood before, and where.

Its states are the substrings with the same places; a state's link is that of its longest suffix
which stands at more places (Blumer et al. 1985). A token costs O(1) on average.
"""

from __future__ import annotations

from collections.abc import Iterable


class SuffixAutomaton:
    """Every substring of the tokens added so far.

    Attributes:
        ids: the text.
        end: of each state, the position after one of its places: one of the latest.
    """

    def __init__(self, ids: Iterable[int] = ()):
        self.ids: list[int] = []
        self.next: list[dict[int, int]] = [{}]
        self.link, self.length, self.end = [-1], [0], [0]
        self.whole = 0  # the state of the whole text
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Put a token at the end of the text."""
        if self.whole:  # the end so far is the latest place of what stood before, too
            self.end[self.link[self.whole]] = len(self.ids)
        self.ids.append(token)
        new = self.state({}, 0, len(self.ids), len(self.ids))
        state = self.whole
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = new
            state = self.link[state]
        if state >= 0:
            self.link[new] = self.split(state, token)
        self.whole = new

    def split(self, state: int, token: int) -> int:
        """The state of which `state`'s longest substring with `token` behind it is the longest."""
        found = self.next[state][token]
        length = self.length[state] + 1
        if self.length[found] == length:
            return found
        clone = self.state(dict(self.next[found]), self.link[found], length, self.end[found])
        self.link[found] = clone
        while state >= 0 and self.next[state].get(token) == found:
            self.next[state][token] = clone
            state = self.link[state]
        return clone

    def state(self, after: dict[int, int], link: int, length: int, end: int) -> int:
        self.next.append(after)
        self.link.append(link)
        self.length.append(length)
        self.end.append(end)
        return len(self.next) - 1

    def repeated(self) -> tuple[int, int]:
        """The longest end of the text that stood before: its length, and where it ended then.

        Zero tokens where the last one is new.
        """
        state = self.link[self.whole] if self.whole else 0
        return self.length[state], self.end[state]

    def after(self, end: int, length: int) -> list[int]:
        """At most `length` tokens from position `end` on."""
        return self.ids[end : end + length]


class Follower:
    """The longest end of one text that stands in another one, an automaton's."""

    def __init__(self, automaton: SuffixAutomaton):
        self.automaton, self.state, self.length = automaton, 0, 0

    def add(self, token: int) -> None:
        """The text that is followed has another token."""
        other = self.automaton
        while self.state and token not in other.next[self.state]:
            self.state = other.link[self.state]
            self.length = other.length[self.state]
        if token in other.next[self.state]:
            self.state = other.next[self.state][token]
            self.length += 1

    @property
    def end(self) -> int:
        """The position after it in the other text."""
        return self.automaton.end[self.state]
