"""What the verifier keeps of a draft, without changing the distribution of its text.

The draft is a function of the text before it (one forward and a search), hence a point mass and no
sample from any drafter distribution q. The rejection rule for a point mass: keep draft token y with
probability p(y), otherwise write a token drawn from p without y, renormalised. Drawing x from p and
keeping y where x = y is the same rule in one draw, and makes the text independent of the draft: the
same noise gives the same text whatever was drafted. Testing y against a q that it was not sampled
from is biased, and is not offered. Greedy decoding is the same comparison with x the best token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Verdict(NamedTuple):
    accepted: int  # draft tokens kept
    token: int  # the verifier's own token after them: replacement, or bonus if all were kept


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


def verify(scores: Tensor, draft: list[int], uniform: Tensor | None = None) -> Verdict:
    """Compare a draft of k tokens with the verifier's choices after each of them.

    Args:
        scores: (k + 1, V); row i is the verifier's after the first i draft tokens.
        draft: k token ids of the verifier.
        uniform: (k + 1,) to sample, None for greedy; see `choose`.
    """
    chosen = choose(scores, uniform).tolist()
    pairs = enumerate(zip(draft, chosen, strict=False))
    accepted = next((i for i, (drafted, own) in pairs if drafted != own), len(draft))
    return Verdict(accepted, chosen[accepted])
