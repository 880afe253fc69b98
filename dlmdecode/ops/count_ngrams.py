"""`count_ngrams`: an n-gram model of one text."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_numbers, integer
from dlmdecode.ops.extension import register
from dlmdecode.ops.splitmix import extend, key_of


def count_ngrams(ids: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """The n-grams of a text, of orders 1 to `order`, relative to their contexts; on the CPU.

    ids: int64 (T,), none negative. -1 stands before the first.

    Returns sorted int64 keys of the n-grams, the float32 log of their counts over those of their
    contexts, and sorted int64 keys of the contexts. Keys as in `splitmix.py`; those of one order
    are none of another, so that one table serves all orders of `path_search`.
    Raises ValueError for arguments that do not fit.
    """
    check_numbers("ids", ids, torch.int64)
    require(not len(ids) or int(ids.min()) >= 0, "ids", ids, "give none below 0")
    order = integer("order", order)
    require(order >= 1, "order", order, "give at least 1")
    return run(ids.contiguous(), order)


def reference(ids: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    text = torch.cat([ids.new_full((order - 1,), -1), ids])
    windows = text.unfold(0, order, 1) if len(ids) else ids.new_empty(0, order)
    context = torch.cat([key_of(windows[:, order - n : -1]) for n in range(1, order + 1)])
    key = extend(context, windows[:, -1].repeat(order))
    keys, which, count = key.unique(return_inverse=True, return_counts=True)
    contexts, of, total = context.unique(return_inverse=True, return_counts=True)
    among = torch.empty_like(count).scatter(0, which, total[of])
    return keys, (count / among.double()).log().float(), contexts


def fake(ids, order):
    size = torch.library.get_ctx().new_dynamic_size
    keys = ids.new_empty(size())
    return keys, torch.empty_like(keys, dtype=torch.float32), ids.new_empty(size())


run = register("count_ngrams", reference, fake)
