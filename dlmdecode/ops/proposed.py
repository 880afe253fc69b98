"""What ops say of rows of logits, and of those that have no answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

UNNEEDED, BAD = -1, -2  # in place of a token: a row that was not asked for, or that has no answer


class Proposed(NamedTuple):
    """What one row of logits says; each field (N,)."""

    token: Tensor  # int64; -1 where not needed, -2 where the row has no answer
    log_prob: Tensor  # of `token` under the untempered logits; precise where it is near 0
    margin: Tensor  # best minus second best logit that may be proposed; inf where there is one
    entropy: Tensor  # nats, of the untempered softmax


class NoProposal(ValueError):
    """Rows of logits that have no answer: NaN, +inf, or every token banned. `rows` lists them."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


def check(proposed: Proposed) -> None:
    """Raise `NoProposal` that names the rows without an answer; waits for the device."""
    check_tokens(proposed.token)


def check_tokens(token: Tensor) -> None:
    bad = (token == BAD).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        message = f"logits: row {shown} holds NaN or +inf, or bans every token that may be proposed"
        raise NoProposal(message, bad)


def check_at_once(token: Tensor) -> None:
    """Check where that costs no synchronisation and breaks no graph."""
    at_once = token.device.type == "cpu" and not torch.compiler.is_compiling()
    if at_once and (token.numpy() == BAD).any():
        check_tokens(token)
