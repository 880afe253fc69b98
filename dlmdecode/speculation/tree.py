"""A draft: tokens behind a text, each of which the verifier is asked about in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dlmdecode.checks import require

ROUNDING = 1e-3  # above 0, where a log probability of float32 may end up


@dataclass(frozen=True)
class Draft:
    """A tree of n tokens, parents before their children; given as lists, arrays or tensors.

    Attributes:
        token: n ids: the drafter's where a drafter returns it, the verifier's where it is verified.
        parent: index of the node that each one follows, -1 for the text's end. In a chain
            parent[i] is i - 1. The children of a node are different tokens.
        log_prob: the drafter's natural log probabilities of the nodes, each after its parent; None
            if unknown. They may cut and join drafts; what is accepted never depends on them.

    Raises:
        ValueError: one of these does not hold.
    """

    token: Sequence[int]
    parent: Sequence[int]
    log_prob: Sequence[float] | None = None

    def __post_init__(self) -> None:
        token, parent = as_tuple(self.token), as_tuple(self.parent)
        whole = all(isinstance(id, int) for id in (*token, *parent))
        require(whole, "draft", (token, parent), "token and parent are whole numbers")
        require(len(parent) == len(token), "parent", parent, f"give one for each of {len(token)}")
        ordered = all(-1 <= of < node for node, of in enumerate(parent))
        require(ordered, "parent", parent, "a node follows an earlier one, or -1, the text's end")
        distinct = len(set(zip(parent, token, strict=True))) == len(token)
        require(distinct, "token", token, "a node has one child for a token: join equal ones")
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "parent", parent)
        if self.log_prob is not None:
            log_prob = as_tuple(self.log_prob)
            fits = len(log_prob) == len(token) and all(one <= ROUNDING for one in log_prob)
            require(fits, "log_prob", log_prob, f"give {len(token)} logarithms, none above 0")
            object.__setattr__(self, "log_prob", log_prob)

    def __len__(self) -> int:
        return len(self.token)

    @classmethod
    def chain(cls, token: Any, log_prob: Any = None) -> Draft:
        """The draft whose tokens (n,) follow each other."""
        return cls(token, range(-1, len(token) - 1), log_prob)

    @property
    def is_chain(self) -> bool:
        return self.parent == tuple(range(-1, len(self.token) - 1))


def as_tuple(values: Any) -> tuple[Any, ...]:
    """The numbers of a list, an array or a tensor as Python's."""
    return tuple(values.tolist() if isinstance(values, (np.ndarray, Tensor)) else values)
