"""What the verifier keeps of a draft, without changing the distribution of its text.

A draft is a tree; the verifier walks through it with its own choices. From the text's end on it
chooses its next token, x; if a node of the draft has it, the walk goes on from there, and if none
has it, x is the last token written. So every token is the verifier's own choice after the tokens
before it, and the draft only decides how many choices one forward yields. Greedy, x is the best
token; sampled, x is drawn with random numbers of its position, and the same numbers give the same
text whatever was drafted.

For a draft that is a function of the text, hence a point mass, this is the rejection rule: keep
draft token y with probability p(y), else write a token of p without y, renormalised. For a tree the
walk descends with the summed probability of a node's children, the most that any lossless rule has.
Testing y against a q that it was not sampled from is biased, and is not offered. What is lossy has
to be asked for (`acceptance.py`).

The verifier's tokens are chosen one after the other, and none after the first that was not drafted:
its logits processors and stopping criteria see the texts of plain decoding, each once and in order,
so that those with a memory are right too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmdecode.speculation.tree import Draft


class Verdict(NamedTuple):
    path: list[int]  # nodes of the draft that stand, from the text on
    written: list[int]  # their tokens, and the verifier's own after them unless the text ended
    ended: bool  # whether the text ends here


def choose(scores: Tensor, uniform: Tensor | None) -> Tensor:
    """The verifier's token (n,) at each position.

    Args:
        scores: (n, V) float, unnormalised log probabilities after the verifier's processors.
        uniform: (n,) float64 in (0, 1), one per position, to sample; None takes the best token.
    """
    if uniform is None:
        return scores.argmax(-1)
    mass = scores.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True)[:, 0]


class Choices:
    """The verifier's token after any node of a draft, worked out when asked for.

    Args:
        scores: (n + 1, V); after the text, and after each of n nodes.
        text: the ids before the draft.
        processors: the verifier's logits processors; each row is given them after its own text.
        uniform: one per position from the text's end on, to sample; None for greedy. See `choose`.
    """

    def __init__(self, scores: Tensor, text: list[int], processors: Any, uniform: Tensor | None):
        self.scores, self.processors, self.uniform = scores, processors, uniform
        # where nothing looks at a row, all are chosen at once
        free = not processors and uniform is None
        self.best = choose(scores, None).tolist() if free else None
        self.start = len(text)
        if processors:
            self.ids = torch.tensor([text + [0] * len(scores)], device=scores.device)

    def __call__(self, node: int, written: list[int]) -> int:
        """The token after `node`, -1 for the text's end; `written` are the tokens up to there."""
        if self.best is not None:
            return self.best[node + 1]
        row, count = self.scores[node + 1 : node + 2], len(written)
        if self.processors:
            if written:
                self.ids[0, self.start + count - 1] = written[-1]
            row = self.processors(self.ids[:, : self.start + count], row.clone())  # may be written
        self.row = row
        return int(choose(row, None if self.uniform is None else self.uniform[count : count + 1]))

    def last(self, node: int) -> Tensor:
        """The processed scores (V,) of the choice after `node`, the last that was asked for."""
        return self.row[0] if self.best is None else self.scores[node + 1]


def walk(
    draft: Draft, chosen: Callable[[int, list[int]], int], ends: Callable[[list[int]], bool]
) -> Verdict:
    """Write the verifier's tokens for as long as nodes of the draft have them, and one more.

    Args:
        draft: in the verifier's ids.
        chosen: its own choice after a node, given the tokens up to there; see `Choices`.
        ends: whether the text ends with the last of these new tokens.
    """
    written: list[int] = []
    path: list[int] = []
    node: int | None = -1
    ended = False
    while node is not None and not ended:
        token = chosen(node, written)
        written.append(token)
        ended = ends(written)
        node = draft.children.get((node, token))
        if node is not None:
            path.append(node)
    return Verdict(path, written, ended)
