"""AdaBlock-dLLM (arXiv 2509.26432): a block ends where the text is about to break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Self

import torch
from torch import Tensor

from dlmdecode.checks import (
    Between,
    Count,
    PositiveProbability,
    Probability,
    check_id,
    number,
    plain,
    require,
    whole,
)
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import BlockSchedule
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import register_sampler


@dataclass(frozen=True)
class DelimiterBlocks(BlockSchedule):
    """The next block ends at the most confident delimiter proposed within the window ahead.

    The window is `window` of the text's length. A delimiter less than `threshold` sure does not
    count, and without one the block has `length` positions. `delimiters` are token ids, or patterns
    of token text ("\\n", "*\\n*") that `bind` looks up in the model's vocabulary. The proposals
    ahead are fresh: the forward at a full block covers them under every cache.
    """

    delimiters: tuple[int | str, ...]
    threshold: float = 0.3
    window: float = 0.25
    length: int = 32

    def __post_init__(self) -> None:
        require(len(self.delimiters) > 0, "delimiters", self.delimiters, "give at least one")
        number("delimiter_threshold", self.threshold)
        number("window", self.window, Between(0, 1, above=True))
        whole("block_length", self.length)

    def bind(self, model: Any) -> Self:
        """Patterns become the ids of all tokens whose text matches."""
        patterns = [d for d in self.delimiters if isinstance(d, str)]
        ids = {d for d in self.delimiters if isinstance(d, int)}
        for id in ids:
            check_id("delimiters", id, model)
        if not patterns:
            return self
        require(model.tokenizer is not None, "delimiters", patterns, "no tokenizer: give token ids")
        for token in range(len(model.tokenizer)):
            text = model.tokenizer.decode([token])
            if any(fnmatchcase(text, pattern) for pattern in patterns):
                ids.add(token)
        require(
            len(ids) > 0, "delimiters", patterns, "no token matches: give token ids or patterns"
        )
        return replace(self, delimiters=tuple(sorted(ids)))

    def ahead(self, canvas: Canvas) -> Tensor:
        """Positions of the window, (B,)."""
        return (self.window * canvas.length).long().clamp(min=1)

    def reach(self, canvas: Canvas) -> Tensor:
        return self.ahead(canvas).clamp(min=self.length)

    def __call__(self, canvas: Canvas) -> Tensor:
        proposal, lo = canvas.proposal, canvas.lo[:, None]
        end = canvas.ahead(canvas.lo, self.ahead(canvas))[:, None]
        seen = (canvas.position >= lo) & (canvas.position < end) & canvas.text
        ids = torch.tensor(self.delimiters, device=lo.device)
        found = seen & torch.isin(proposal.token, ids)
        prob, where = proposal.prob.masked_fill(~found, -1).max(1)
        length = canvas.before(where + 1) - canvas.before(canvas.lo)
        return torch.where(prob >= self.threshold, length, self.length)


@register_sampler(
    "adablock",
    over="threshold",
    paper="arXiv 2509.26432",
    recorded=("adablock", "dream-adablock"),
    presets={"Dream": {"delimiters": ("*\n*",), "delimiter_threshold": 0.5}},
)
def adablock(
    delimiters: Sequence[int | str] = ("\n",),
    delimiter_threshold: Probability = 0.3,
    window: PositiveProbability = 0.25,
    block_length: Count | None = 32,
) -> Sampler:
    """End each block at the most confident delimiter ahead, or after `block_length` positions."""
    require(block_length is not None, "block_length", None, "it is the length without a delimiter")
    one = isinstance(delimiters, (str, int))
    wanted = (delimiters,) if one else tuple(map(plain, delimiters))  # type: ignore[arg-type]
    for delimiter in wanted:
        known = isinstance(delimiter, (str, int)) and not isinstance(delimiter, bool)
        require(known, "delimiters", delimiter, "give token ids, or patterns of their text")
    return Sampler(blocks=DelimiterBlocks(wanted, delimiter_threshold, window, block_length))  # type: ignore[arg-type]
