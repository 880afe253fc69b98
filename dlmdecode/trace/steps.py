"""A step of denoising as a line: what changed, by which part, and how sure the model was.

Shapes: **n** rows of the step, **L** positions. Everything here is numpy on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dlmdecode.call import Call
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.trace import Step
from dlmdecode.request import Request
from dlmdecode.settings import Settings
from dlmdecode.trace.file import VERSION
from dlmdecode.trace.names import Names

LOOP = "MostConfident"  # the loop's own choice, where the rule names too few
CODES = np.frombuffer(  # a probability as a character, one of 64, and behind these that of none
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/.", dtype=np.uint8
)
LEVELS, UNKNOWN = CODES[:64], CODES[64]


class Recorder:
    """Makes the lines of a run of `call`; remembers what its lines have told."""

    def __init__(self, call: Call):
        self.call, self.names = call, Names(call.model.tokenizer)
        self.mask_id = call.model.mask_id
        self.drafted = np.empty((0, 0), dtype=np.int64)  # proposals that were told, (B, L)
        self.begun: set[int] = set()  # rows that took part

    def header(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The line that a run begins with."""
        rows = [
            {"prompt": self.names.decode(request.prompt.tolist()), "length": request.length}
            for request in requests
        ]
        return {"version": VERSION, "kind": "generate"} | described(self.call) | {"rows": rows}

    def record(self, step: Step) -> dict[str, Any]:
        """The line of a step."""
        rows, start, cost = step.rows.tolist(), array(step.start), step.cost
        before, after = (of_rows(array(all), rows) for all in (step.before, step.sequences))
        given = self.given(rows, before, start, step.stop)
        writes = writes_of(step, rows, before, after, start)
        fresh = contained(step.fresh, before.shape[1]) & (before == self.mask_id)
        drafts = self.drafts(rows, array(step.proposal.token), fresh, start)
        ids = {*writes["token"], *drafts["token"], *given.get("token", ())}
        return {
            "step": step.number,
            "seconds": round(cost.seconds, 6),
            "forwards": cost.calls,
            "positions": cost.positions,
            "refreshes": cost.refreshes,
            "rows": rows,
            "nfe": step.nfe.tolist(),
            "lo": (array(step.lo) - start).tolist(),
            "hi": (array(step.hi) - start).tolist(),
            "stop": (array(step.stop) - start).tolist(),
            "held": step.held.tolist(),
            "confidence": letters(step, fresh, start),
            "given": given,
            "writes": writes,
            "drafts": drafts,
            "vocabulary": self.names.new(ids),
        }

    def given(self, rows: list[int], before: Any, start: Any, stop: Tensor) -> dict[str, Any]:
        """What stands in the texts of rows that take part for the first time."""
        new = [index for index, row in enumerate(rows) if row not in self.begun]
        if not new:
            return {}
        self.begun.update(rows)
        position = np.arange(before.shape[1])
        text = (position >= start[new, None]) & (position < array(stop)[new, None])
        index, at = np.nonzero(text & (before[new] != self.mask_id))
        index = np.array(new)[index]
        return columns(rows, index, at - start[index], before[index, at]) if len(at) else {}

    def drafts(self, rows: list[int], token: Any, fresh: Any, start: Any) -> dict[str, Any]:
        """What the model would write at positions `fresh`, where the file has it otherwise."""
        self.fit(max(rows) + 1, fresh.shape[1])
        index, at = (fresh & (of_rows(self.drafted, rows) != token)).nonzero()
        found = columns(rows, index, at - start[index], token[index, at])
        self.drafted[found["row"], at] = found["token"]
        return found

    def fit(self, num_rows: int, length: int) -> None:
        """Room for so many rows and positions."""
        rows, columns = self.drafted.shape
        if num_rows > rows or length > columns:
            more = ((0, max(num_rows - rows, 0)), (0, max(length - columns, 0)))
            self.drafted = np.pad(self.drafted, more, constant_values=-1)


def writes_of(step: Step, rows: list[int], before: Any, after: Any, start: Any) -> dict[str, Any]:
    """The tokens that a step changed, column by column."""
    index, at = (before != after).nonzero()
    done = zip(*(array(done)[index, at].tolist() for _, done in step.trail), strict=True)
    was, proposal = before[index, at].tolist(), step.proposal
    sure = numbers(step.confidence, index, at)
    found = columns(rows, index, at - start[index], after[index, at])
    which = map(reason, was, done)
    found["rule"] = [label(step.trail[i][0], c) for i, c in zip(which, sure, strict=True)]
    proposed = (after[index, at] == array(proposal.token)[index, at]).tolist()
    for name, values in (
        ("confidence", sure),
        ("margin", numbers(proposal.margin, index, at)),
        ("entropy", numbers(proposal.entropy, index, at)),
    ):
        found[name] = [v if ok else None for v, ok in zip(values, proposed, strict=True)]
    return found


def letters(step: Step, fresh: Any, start: Any) -> list[str]:
    """How sure the model is of its proposals at positions `fresh`, a text for each row."""
    level = (array(step.proposal.prob) * 63 + 0.5).astype(np.uint8)
    text = CODES[np.where(fresh, level, 64)]
    bounds = zip(start.tolist(), step.stop.tolist(), strict=True)
    return [row[lo:hi].tobytes().decode() for row, (lo, hi) in zip(text, bounds, strict=True)]


def described(call: Call) -> dict[str, Any]:
    """What decodes: sampler, options, recipe and model."""
    names = [entry.name for entry in call.composition.entries]
    slots = {
        slot: [repr(part) for part in (held if isinstance(held, tuple) else (held,))]
        for slot, held in call.sampler.slots.items()
        if held
    }
    known, usual = vars(call.settings), vars(Settings())
    settings = {name: value for name, value in known.items() if value != usual[name]}
    return {
        "sampler": "+".join(names) or "Sampler",
        "options": {name: plain(value) for name, value in (settings | call.options).items()},
        "recipe": slots,
        "family": call.model.family,
        "mask_id": call.model.mask_id,
        "eos_ids": list(call.model.eos_ids),
    }


def plain(value: Any) -> Any:
    """A value as JSON has it, anything else by its text."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def reason(before: int, done: Sequence[int | bool]) -> int:
    """Which entry of the trail is the reason for a position's last change.

    Args:
        before: its token before the step.
        done: what each entry says of it: the token after it, or whether it wants a commit. Of
            several that want one the first is the reason.
    """
    which, wanted = -1, -1
    for number, now in enumerate(done):
        if isinstance(now, bool):
            wanted = number if now and wanted < 0 else wanted
        else:
            which = which if now == before else number if wanted < 0 else wanted
            before, wanted = now, -1
    return which


def label(part: Any, confidence: float | None) -> str:
    """What a change by `part` is called."""
    return LOOP if part is None else part.label(-math.inf if confidence is None else confidence)


def array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()


def of_rows(all: Any, rows: list[int]) -> Any:
    """Those of all rows; no copy where they are all."""
    return all if rows == list(range(len(all))) else all[rows]


def contained(positions: Positions, length: int) -> Any:
    """Which of so many positions are among them, (n, length) bool."""
    if isinstance(positions, Span):
        at = np.arange(length)
        return (at >= array(positions.lo)[:, None]) & (at < array(positions.hi)[:, None])
    where = array(positions.where)
    if where.shape[1] == length:
        return where
    wide = np.zeros((len(where), length), dtype=bool)
    wide[:, : where.shape[1]] = where
    return wide


def columns(rows: list[int], index: Any, position: Any, token: Any) -> dict[str, list[Any]]:
    """Tokens at positions of the rows `index`, as lists of equal length."""
    row = [rows[i] for i in index.tolist()]
    return {"row": row, "position": position.tolist(), "token": token.tolist()}


def numbers(values: Tensor, index: Any, at: Any) -> list[float | None]:
    """Numbers at positions, with four digits; None for what is not finite."""
    found = array(values)[index, at].tolist()
    return [round(value, 4) if math.isfinite(value) else None for value in found]
