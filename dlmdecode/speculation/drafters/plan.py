"""Drafts that wait for the same model: what several of them ask is answered at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from dlmdecode.speculation.diffuspec.lattice import TopM
from dlmdecode.speculation.tree import Draft

Proposal = TopM | list[int] | Draft


class Ask(NamedTuple):
    """What a draft waits for."""

    of: Callable[[list[Any]], Sequence[Any]]  # answers the questions of several drafts
    what: Any


Plan = Generator[Ask, Any, Proposal]
"""A draft in the making: it yields what it asks, is sent the answer, and returns a proposal."""


def together(plans: Sequence[Plan]) -> list[Proposal]:
    """What the plans come to; those that ask the same are answered in one call."""
    found: dict[int, Proposal] = {}
    asks: dict[int, Ask] = {}

    def go_on(at: int, answer: Any = None) -> None:
        try:
            asks[at] = plans[at].send(answer)
        except StopIteration as end:
            found[at] = end.value

    for at in range(len(plans)):
        go_on(at)
    while asks:
        asked = next(iter(asks.values())).of
        group = [at for at, ask in asks.items() if ask.of == asked]
        answers = asked([asks.pop(at).what for at in group])
        for at, answer in zip(group, answers, strict=True):
            go_on(at, answer)
    return [found[at] for at in range(len(plans))]
