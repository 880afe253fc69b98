"""A draft: tokens behind a text, each of which the verifier is asked about in one forward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import lt
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from dlmdecode.checks import Between, require

Nodes = Annotated[int, Between(1, 4096)]  # of a tree: one forward sees each with all before it
ROUNDING = 1e-3  # above 0, where a log probability of float32 may end up


@dataclass(frozen=True)
class Draft:
    """A tree of n tokens, parents before their children; given as lists, arrays or tensors.

    Attributes:
        token: n ids: the drafter's where a drafter returns it, the verifier's where it is verified.
        parent: index of the node that each one follows, -1 for the text's end. In a chain
            parent[i] is i - 1. The children of a node are different tokens, likeliest first.
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
        whole = all(issubclass(kind, int) for kind in {*map(type, token), *map(type, parent)})
        require(whole, "draft", (token, parent), "token and parent are whole numbers")
        require(len(parent) == len(token), "parent", parent, f"give one for each of {len(token)}")
        ordered = all(map(lt, parent, range(len(parent)))) and min(parent, default=-1) >= -1
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
    def known(cls, token: Any, parent: Any, log_prob: Any = None) -> Draft:
        """A draft that is right by the way it was made: nothing is checked."""
        draft = object.__new__(cls)
        log_prob = None if log_prob is None else as_tuple(log_prob)
        vars(draft).update(token=as_tuple(token), parent=as_tuple(parent), log_prob=log_prob)
        return draft

    @classmethod
    def chain(cls, token: Any, log_prob: Any = None) -> Draft:
        """The draft whose tokens (n,) follow each other."""
        return cls(token, range(-1, len(token) - 1), log_prob)

    @classmethod
    def joined(cls, paths: Iterable[Sequence[int]]) -> Draft:
        """The tree of all paths; those that begin alike share their nodes."""
        return cls((), ()).with_paths(paths)

    def with_paths(self, paths: Iterable[Sequence[int]]) -> Draft:
        """The tree of its nodes, then of those that `paths` from the text's end add; without
        probabilities."""
        children = dict(self.children)
        for path in paths:
            node = -1
            for token in path:
                node = children.setdefault((node, token), len(children))
        return Draft.known([token for _, token in children], [parent for parent, _ in children])

    @cached_property
    def is_chain(self) -> bool:
        return self.parent == tuple(range(-1, len(self.token) - 1))

    @cached_property
    def children(self) -> dict[tuple[int, int], int]:
        """(node or -1, token) -> the node's child with this token."""
        return {edge: node for node, edge in enumerate(zip(self.parent, self.token, strict=True))}

    @cached_property
    def depth(self) -> list[int]:
        """Tokens between the text and each node."""
        depth: list[int] = []
        for parent in self.parent:
            depth.append(0 if parent < 0 else depth[parent] + 1)
        return depth

    def paths(self) -> list[list[int]]:
        """The tokens from the text to each leaf."""
        inner = set(self.parent)
        path: list[list[int]] = [[]]  # to the text's end, then to each node
        for token, parent in zip(self.token, self.parent, strict=True):
            path.append([*path[parent + 1], token])
        return [ids for node, ids in enumerate(path[1:]) if node not in inner]

    def cut(self, length: int) -> Draft:
        """The nodes up to `length` tokens from the text."""
        if len(self) <= length or max(self.depth) < length:
            return self
        return self.only([node for node, depth in enumerate(self.depth) if depth < length])

    def first_chain(self) -> Draft:
        """The chain of first children."""
        chain: list[int] = []
        for node, parent in enumerate(self.parent):
            if parent == (chain[-1] if chain else -1):
                chain.append(node)
        return self.only(chain)

    def depth_first(self) -> list[int]:
        """The nodes in the order in which each one's first child comes right behind it."""
        below: list[list[int]] = [[] for _ in range(len(self) + 1)]  # of each node, then the text
        for node, parent in enumerate(self.parent):
            below[parent].append(node)
        order, waiting = [], below[-1][::-1]
        while waiting:
            order.append(node := waiting.pop())
            waiting += reversed(below[node])
        return order

    def only(self, nodes: list[int]) -> Draft:
        """These nodes, in this order, the parents of each before it."""
        new = {-1: -1} | {node: index for index, node in enumerate(nodes)}
        log_prob = None if self.log_prob is None else [self.log_prob[node] for node in nodes]
        parent = [new[self.parent[node]] for node in nodes]
        return Draft.known([self.token[node] for node in nodes], parent, log_prob)


def as_tuple(values: Any) -> tuple[Any, ...]:
    """The numbers of a list, an array or a tensor as Python's."""
    return tuple(values.tolist() if isinstance(values, (np.ndarray, Tensor)) else values)
