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
LEVELS = np.frombuffer(  # a probability as a character
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8
)
UNKNOWN = ord(".")


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
        rows, begin, cost = step.rows.tolist(), step.start.tolist(), step.cost
        before, after = array(step.before)[rows], array(step.sequences)[rows]
        start, stop = array(step.start), step.stop.tolist()
        given = self.given(rows, before, start, array(step.stop))
        writes = self.writes(step, before, after, start)
        drafts, sure = self.drafts(step, before, start)
        ids = {*writes["token"], *drafts["token"], *given.get("token", ())}
        return {
            "step": step.number,
            "seconds": round(cost.seconds, 6),
            "forwards": cost.calls,
            "positions": cost.positions,
            "refreshes": cost.refreshes,
            "rows": rows,
            "nfe": step.nfe.tolist(),
            "lo": [at - zero for at, zero in zip(step.lo.tolist(), begin, strict=True)],
            "hi": [at - zero for at, zero in zip(step.hi.tolist(), begin, strict=True)],
            "stop": [at - zero for at, zero in zip(stop, begin, strict=True)],
            "held": step.held.tolist(),
            "confidence": sure,
            "given": given,
            "writes": writes,
            "drafts": drafts,
            "vocabulary": self.names.new(ids),
        }

    def given(self, rows: Sequence[int], before: Any, start: Any, stop: Any) -> dict[str, Any]:
        """What stands in the texts of rows that take part for the first time."""
        new = [index for index, row in enumerate(rows) if row not in self.begun]
        if not new:
            return {}
        self.begun.update(rows)
        position = np.arange(before.shape[1])
        text = (position >= start[new, None]) & (position < stop[new, None])
        index, at = np.nonzero(text & (before[new] != self.mask_id))
        index = np.array(new)[index]
        return columns(rows, index, at - start[index], before[index, at]) if len(at) else {}

    def writes(self, step: Step, before: Any, after: Any, start: Any) -> dict[str, Any]:
        """The tokens that this step changed, column by column."""
        index, at = np.nonzero(before != after)
        done = zip(*(array(done)[index, at].tolist() for _, done in step.trail), strict=True)
        was, proposal = before[index, at].tolist(), step.proposal
        sure = numbers(step.confidence, index, at)
        found = columns(step.rows.tolist(), index, at - start[index], after[index, at])
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

    def drafts(self, step: Step, before: Any, start: Any) -> tuple[dict[str, Any], list[str]]:
        """What the model would write otherwise than the file has it, and how sure it is of all."""
        rows, token = step.rows.tolist(), array(step.proposal.token)
        fresh = contained(step.fresh, before.shape[1]) & (before == self.mask_id)
        self.fit(max(rows) + 1, before.shape[1])
        kept = self.drafted[rows]
        index, at = np.nonzero(fresh & (kept != token))
        self.drafted[rows] = np.where(fresh, token, kept)
        level = (array(step.proposal.prob) * 63 + 0.5).astype(np.uint8)
        text = np.where(fresh, LEVELS[level], UNKNOWN).astype(np.uint8)
        bounds = zip(start.tolist(), step.stop.tolist(), strict=True)
        sure = [row[lo:hi].tobytes().decode() for row, (lo, hi) in zip(text, bounds, strict=True)]
        return columns(rows, index, at - start[index], token[index, at]), sure

    def fit(self, num_rows: int, length: int) -> None:
        """Room for so many rows and positions."""
        rows, columns = self.drafted.shape
        if num_rows > rows or length > columns:
            more = ((0, max(num_rows - rows, 0)), (0, max(length - columns, 0)))
            self.drafted = np.pad(self.drafted, more, constant_values=-1)


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


def contained(positions: Positions, length: int) -> Any:
    """Which of so many positions are among them, (n, length) bool."""
    if not isinstance(positions, Span):
        where = array(positions.where)
        return np.pad(where, ((0, 0), (0, length - where.shape[1])))
    at = np.arange(length)
    return (at >= array(positions.lo)[:, None]) & (at < array(positions.hi)[:, None])


def columns(rows: Sequence[int], index: Any, position: Any, token: Any) -> dict[str, list[Any]]:
    """Tokens at positions of the rows `index`, as lists of equal length."""
    row = [rows[i] for i in index.tolist()]
    return {"row": row, "position": position.tolist(), "token": token.tolist()}


def numbers(values: Tensor, index: Any, at: Any) -> list[float | None]:
    """Numbers at positions, with four digits; None for what is not finite."""
    found = array(values)[index, at].tolist()
    return [round(value, 4) if math.isfinite(value) else None for value in found]
