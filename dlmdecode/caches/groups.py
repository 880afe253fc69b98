"""Rows of a batch that take different forwards in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions

Answer = tuple[Tensor, Positions]
Part = Callable[[Canvas, Positions], Answer]


def either(
    due: Sequence[bool], rows: Canvas, wanted: Positions, refresh: Part, recompute: Part
) -> Answer:
    """What `refresh` says of the rows that are `due`, and `recompute` of the others."""
    if all(due):
        return refresh(rows, wanted)
    if not any(due):
        return recompute(rows, wanted)
    chosen = [[i for i, one in enumerate(due) if one == which] for which in (True, False)]
    groups = [torch.tensor(index, device=rows.lo.device) for index in chosen]
    parts = [
        part(rows.take(index), wanted.take(index))
        for part, index in zip((refresh, recompute), groups, strict=True)
    ]
    return join(parts, torch.cat(groups).argsort())


def join(parts: list[Answer], order: Tensor) -> Answer:
    """States and positions of several groups of rows as one, in `order`, short rows padded."""
    positions = [computed for _, computed in parts]
    whole = type(positions[0]).cat(positions).take(order)  # type: ignore[arg-type]
    states = parts[0][0].new_zeros(len(order), whole.width, parts[0][0].shape[-1])
    first = 0
    for some, computed in parts:
        states[first : first + len(some), : computed.width] = some
        first += len(some)
    return states[order], whole
