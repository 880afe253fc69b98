"""What the verifier keeps of a draft, without changing the distribution of its text.

The draft is a function of the text before it (one forward and a search), hence a point mass and no
sample from any drafter distribution q. The rejection rule for a point mass: keep draft token y with
probability p(y), otherwise write a token drawn from p without y, renormalised. Drawing x from p and
keeping y where x = y is the same rule in one draw, and makes the text independent of the draft: the
same noise gives the same text whatever was drafted. Testing y against a q that it was not sampled
from is biased, and is not offered. Greedy decoding is the same comparison with x the best token.

The verifier's tokens are chosen one after the other, and none after the first that was not drafted:
its logits processors and stopping criteria see the texts of plain decoding, each once and in order,
so that those with a memory are right too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Verdict(NamedTuple):
    accepted: int  # draft tokens kept
    written: list[int]  # they, and the verifier's own token after them unless the text ended before
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


def choices(
    scores: Tensor, tokens: list[int], processors: Any, uniform: Tensor | None
) -> Iterator[int]:
    """The verifier's token after the text and after each draft token, worked out when asked for.

    Args:
        scores: (k + 1, V); row i is the verifier's after the first i draft tokens.
        tokens: the text and its draft of k tokens.
        processors: the verifier's logits processors; each row is given them after its own text.
        uniform: (k + 1,) to sample, None for greedy; see `choose`.
    """
    if not processors and uniform is None:  # nothing looks at a row: all at once
        yield from choose(scores, None).tolist()
        return
    ids = torch.tensor([tokens], device=scores.device)
    start = len(tokens) - len(scores) + 1
    for i in range(len(scores)):
        row = scores[i : i + 1]
        if processors:
            row = processors(ids[:, : start + i], row.clone())  # may be written to
        yield int(choose(row, None if uniform is None else uniform[i : i + 1]))


def verify(draft: list[int], chosen: Iterable[int], ends: Callable[[list[int]], bool]) -> Verdict:
    """Write the verifier's tokens for as long as they are the draft's, and one more.

    Args:
        draft: k token ids of the verifier.
        chosen: its own k + 1 choices, after the text and after each draft token.
        ends: whether the text ends with the last of these new tokens.
    """
    written: list[int] = []
    accepted, ended = 0, False
    for drafted, token in zip([*draft, None], chosen, strict=False):
        written.append(token)
        accepted += token == drafted
        ended = ends(written)
        if ended or token != drafted:
            break
    return Verdict(accepted, written, ended)
