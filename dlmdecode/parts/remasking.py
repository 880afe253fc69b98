"""Revisions: what a step takes back after its commit, by re-masking or by shortening the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Revision


def first(where: Tensor) -> Tensor:
    """Position of the first true entry of each row (B,), L where there is none."""
    return torch.where(where.any(1), where.int().argmax(1), where.shape[1])


@dataclass(frozen=True)
class EndOfSequence(Revision):
    """End a row at its first committed EOS once nothing to the left of it is masked.

    Never changes a token before that EOS: whatever stands there is final.
    """

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        eos = first(canvas.is_eos(canvas.tokens) & canvas.text)
        settled = (eos < first(canvas.masked)) & ~canvas.held
        canvas.truncate(torch.where(settled, eos + 1, canvas.stop))
