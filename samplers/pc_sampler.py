"""PC-Sampler (Uncode, arXiv 2508.13021): early positions and informative tokens come first."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dlmdecode.checks import Between, NonNegative, Positive, number, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Part, Score, Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.registry import register_sampler

NUM_TOKENS, COUNTS = "num_token", "p_baseline_dict"  # what the authors' files call them


@dataclass(frozen=True, eq=False)
class Frequencies:
    """How often tokens occur in a corpus: (T,) float64 shares of ids 0 to T − 1.

    The last one is that of every token that the corpus does not have: one occurrence.
    """

    share: Tensor

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Frequencies:
        """Read a JSON file of the authors' form: all tokens, and a count of each id."""
        require(Path(path).is_file(), "frequencies", str(path), "there is no such file")
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        known = isinstance(table, dict) and {NUM_TOKENS, COUNTS} <= table.keys()
        fix = f'give {{"{NUM_TOKENS}": all tokens, "{COUNTS}": {{"id": count}}}}'
        require(known, "frequencies", str(path), fix)
        counts = {int(id): count for id, count in table[COUNTS].items()}
        size = max(counts, default=-1) + 2
        share = torch.full((size,), 1.0, dtype=torch.float64, device="cpu")
        share[list(counts)] = torch.tensor(list(counts.values()), device="cpu").double()
        return cls(share / table[NUM_TOKENS])

    def of(self, tokens: Tensor) -> Tensor:
        """The share of each of `tokens`, float64 of their shape."""
        return self.share.to(tokens.device)[tokens.clamp(max=len(self.share) - 1)]


@dataclass(frozen=True)
class EarlierFirst(Score):
    """The confidence times e^(−`decay` · i), i counted from the block's first position."""

    decay: float = 0.25

    def __post_init__(self) -> None:
        number("decay", self.decay, Between(0))

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        place = (canvas.text & (canvas.position >= canvas.lo[:, None])).cumsum(1)
        return confidence * torch.exp(-self.decay * (place - 1).clamp(min=0).double())


@dataclass(frozen=True)
class Informative(Score):
    """−c · ln f, f the frequency of the proposed token, at most `clip`: how much a commit tells."""

    frequencies: Frequencies
    clip: float = 10.0

    def bind(self, model: Denoiser) -> Self:
        known, size = len(self.frequencies.share) - 1, model.vocab_size
        fix = f"the table has ids up to {known - 1}, the model {size}: give one of its tokenizer"
        require(size is None or known <= size, "frequencies", known, fix)
        return self

    def refuses(self, other: Part) -> str | None:
        if isinstance(other, Selection) and not other.ranks:
            return "its score is no probability: it ranks positions, for a rule that counts them"
        return None

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        share = self.frequencies.of(canvas.proposal.token)
        return (-confidence * (share + 1e-9).log()).clamp(max=self.clip)


@register_sampler(
    "pc_sampler",
    over="vanilla",
    paper="arXiv 2508.13021",
    recorded=("pc-sampler",),
    second=("d2-pc",),
)
def pc_sampler(
    frequencies: str | os.PathLike[str] | Frequencies | None = None,
    decay: NonNegative = 0.25,
    clip: Positive | None = None,
) -> Sampler:
    """Rank by confidence, position in the block and, given `frequencies`, how rare the token is.

    `frequencies` is a JSON file of the model's own tokens in the authors' form. Without one all
    tokens count alike. `clip` is 10 if not given.
    """
    if frequencies is None:
        fix = "it bounds what rare tokens count: give frequencies, too"
        require(clip is None, "clip", clip, fix)
        return Sampler(scores=(EarlierFirst(decay),))
    table = frequencies
    if not isinstance(table, Frequencies):
        path = isinstance(table, str | os.PathLike)
        require(path, "frequencies", table, "give the path of a JSON file")
        table = Frequencies.load(table)
    return Sampler(scores=(Informative(table, clip or 10.0), EarlierFirst(decay)))
