"""Revisions: what a step takes back after its commit, by re-masking or by shortening the text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision


def first(where: Tensor) -> Tensor:
    """Position of the first true entry of each row (B,), L where there is none."""
    return torch.where(where.any(1), where.int().argmax(1), where.shape[1])


@dataclass(frozen=True)
class EndOfSequence(Revision):
    """End a row at its first committed EOS once nothing to the left of it is masked.

    Never changes a token before that EOS: whatever stands there is final. Where there are gaps,
    each one ends at its own.
    """

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        ended = (row.eos_at < row.mask_at and row.eos_at + 1 < row.stop for row in canvas.seen)
        if canvas.gaps is None and not any(ended):
            return
        ends = canvas.is_eos(canvas.tokens)
        for gap in canvas.each_gap:
            eos = first(ends & gap)
            settled = (eos < first(canvas.masked & gap)) & ~canvas.held
            canvas.truncate(torch.where(settled, eos + 1, canvas.stop))


def first_match(text: str, strings: Sequence[str]) -> tuple[int, int] | None:
    """Where the match of one of `strings` that ends first begins and ends; None if there is none.

    It is the one that a reader from the left meets first. Of two that end together, the longer.
    """
    begins = ((text.find(string), len(string)) for string in strings)
    found = [(at + length, at) for at, length in begins if at >= 0]
    if not found:
        return None
    end, begin = min(found)
    return begin, end


def before_match(text: str, strings: Sequence[str]) -> str:
    """The text before the first match, all of it where there is none."""
    match = first_match(text, strings)
    return text if match is None else text[: match[0]]


@dataclass(frozen=True)
class StopStrings(Revision):
    """End a row with the token that completes one of `strings`, once nothing before it is masked.

    `whole_blocks` waits for blocks to be finished, where a recipe takes back tokens of the open
    one. `bind` takes the model's tokenizer.
    """

    strings: tuple[str, ...]
    whole_blocks: bool = False
    tokenizer: Any = field(default=None, compare=False)

    def bind(self, model: Any) -> Self:
        """With the tokenizer of `model`; raises `ValueError` for a model without one."""
        has = model.tokenizer is not None
        require(has, "stop_strings", self.strings, "this model has no tokenizer: it writes no text")
        return replace(self, tokenizer=model.tokenizer)

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        settled = torch.minimum(first(canvas.masked), canvas.stop)
        if self.whole_blocks:
            settled = torch.where(canvas.done, settled, torch.minimum(settled, canvas.lo))
        grown = settled > canvas.memory.get(self, canvas.start)
        canvas.memory[self] = settled
        stop = canvas.stop.clone()
        for row in grown.nonzero()[:, 0].tolist():
            begin = int(canvas.start[row])
            stop[row] = begin + self.end(canvas, canvas.tokens[row, begin : int(settled[row])])
        canvas.truncate(stop)

    def end(self, canvas: Canvas, ids: Tensor) -> int:
        """Tokens of a text (n,) up to the one that completes a match; the canvas if none does."""
        ends = canvas.is_eos(ids).nonzero()
        text = ids[: int(ends[0])].tolist() if len(ends) else ids.tolist()

        def matches(count: int) -> bool:
            words = self.tokenizer.decode(text[:count], skip_special_tokens=True)
            return first_match(words, self.strings) is not None

        if not matches(len(text)):
            return canvas.tokens.shape[1]
        return bisect_left(range(len(text)), True, key=matches)
