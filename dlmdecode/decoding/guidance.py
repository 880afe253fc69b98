"""Classifier-free guidance, as a wrapper of the forward."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.positions import Positions


class Guided:
    """Logits `u + (1 + scale)(z − u)`, u from a canvas with a masked prompt (arXiv 2502.09992).

    One call of twice the rows. The unconditional rows have row numbers of their own, `num_rows` and
    up, so a key/value cache keeps them apart; 0 takes as many as the first call has.
    """

    def __init__(self, forward: Forward, scale: float, num_rows: int = 0):
        self.forward, self.work = forward, forward.work
        self.scale, self.num_rows = scale, num_rows

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.num_rows = max(self.num_rows, int(rows.row.max()) + 1)
        n = torch.arange(len(rows), device=rows.tokens.device)
        twice = torch.cat([n, n])
        both = rows.take(twice)
        blind = (torch.arange(len(both), device=n.device) >= len(rows))[:, None]
        prompt = both.position < both.start[:, None]
        both.tokens = both.tokens.masked_fill(blind & prompt, rows.mask_id)
        both.row = both.row + blind[:, 0] * self.num_rows
        logits, positions = self.forward(both, wanted.take(twice))
        guided, free = logits.chunk(2)
        return free + (1 + self.scale) * (guided - free), positions.take(n)
