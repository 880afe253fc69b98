"""`above`: how many logits of a row are above a level, as a file of dlmdecode/ops says it."""

import torch
from torch import Tensor

from dlmdecode.ops.arguments import check_logits, dense_rows, real
from dlmdecode.ops.extension import register


def above(logits: Tensor, level: float) -> Tensor:
    """How many logits (N, V) of each row are above `level`: int64 (N,)."""
    check_logits(logits)
    return run(dense_rows(logits), real("level", level))


def reference(logits: Tensor, level: float) -> Tensor:
    return (logits.double() > level).sum(1)


def fake(logits, level):
    return logits.new_empty(logits.shape[0], dtype=torch.int64)


run = register("above", reference, fake)
