"""What a forward is shown: which positions exist for the model, and who sees whom."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.models.protocol import Denoiser


def visible(rows: Canvas, wanted: Positions) -> Tensor:
    """Positions that exist for the model, (N, L) bool: a forward is given no others.

    All of a row's up to `stop`; with a suffix window (Streaming-dLLM, arXiv 2601.17917) no masks
    behind the open block but the first `rows.suffix` and the text's last `rows.suffix_tail`
    positions. The open block is the one that `wanted` asks for where the row's own is full. Given
    text is always seen.
    """
    position = rows.position
    here = position < rows.stop[:, None]
    if rows.suffix is None:
        return here
    near = rows.ahead(torch.maximum(rows.hi, wanted.hi), rows.suffix)
    tail = rows.stop - rows.suffix_tail
    return here & ~(Span(near, tail).contains(position) & rows.masked)


def view(rows: Canvas, wanted: Positions) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a forward over the canvas is given.

    Returns:
        Tokens and positions, both (N, W) int64: of each row those visible, in order, and behind
        them others that fill it up. All before the open block's end stand in the column of their
        own number.
        Which of them are seen, as a mask (N, 1, 1, W); None where all are.
    """
    if rows.suffix is None:
        length = max(row.stop for row in rows.seen)
        return first(rows.tokens, length), first(rows.position, length), until_stop(rows, length)
    where = visible(rows, wanted)
    at = (~where).byte().argsort(dim=1, stable=True)[:, : int(where.sum(1).max())]
    return rows.tokens.gather(1, at), at, keys(where.gather(1, at))


def keys(where: Tensor) -> Tensor | None:
    """Keys `where` (N, T) bool as a mask (N, 1, 1, T); None where nothing is hidden."""
    return None if bool(where.all()) else where[:, None, None]


def until_stop(rows: Canvas, length: int) -> Tensor | None:
    """Keys before each row's stop, as a mask (N, 1, 1, length); None where nothing is hidden."""
    if all(row.stop >= length for row in rows.seen):
        return None
    return (first(rows.position, length) < rows.stop[:, None])[:, None, None]


def first(value: Tensor, length: int) -> Tensor:
    """The first `length` columns of `value` (N, ·)."""
    return value if value.shape[1] == length else value[:, :length]


def attention_mask(model: Denoiser, rows: Canvas, query: Tensor, length: int) -> Tensor | None:
    """Who sees whom in a forward over the canvas: the model's pattern, up to where each row stops.

    Args:
        query: (N, W) int64, positions of the tokens of the forward.
        length: the keys are those of positions 0 to `length` − 1.

    Returns:
        A bool mask that broadcasts to (N, 1, W, length), or None where all is seen.
    """
    return model.attention(query, first(rows.position, length), until_stop(rows, length))
