"""Steps of denoising as lines: what changed, by which part, and how sure the model was.

Shapes: **T** steps, **n** rows of each, **L** positions. Everything here is numpy on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import torch

from dlmdecode.call import Call
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.trace import Step
from dlmdecode.request import Request
from dlmdecode.settings import Settings
from dlmdecode.trace.file import VERSION
from dlmdecode.trace.names import Names
from dlmdecode.trace.reasons import array, bounds, label, reasons

CODES = np.frombuffer(  # a probability as a character, one of 64, and behind these that of none
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/.", dtype=np.uint8
)
LEVELS, UNKNOWN = CODES[:64], CODES[64]
Columns: TypeAlias = dict[str, list[Any]]
"""Entries of a line, column by column."""


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

    def lines(self, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
        """The lines of steps. Those of the same rows are looked at together, which costs least."""
        for _, alike in groupby(steps, lambda step: (step.rows.tolist(), step.before.shape)):
            yield from self.together(list(alike))

    def together(self, steps: list[Step]) -> Iterator[dict[str, Any]]:
        """The lines of T steps of the same rows."""
        rows, stack = steps[0].rows.tolist(), Stack(steps)
        before, after = (stack(name)[:, rows] for name in ("before", "sequences"))
        start, stop = stack("start"), stack("stop")
        fresh = np.stack([contained(step.fresh, before.shape[2]) for step in steps])
        fresh &= before == self.mask_id
        parts = {
            "nfe": stack("nfe").tolist(),
            "lo": (stack("lo") - start).tolist(),
            "hi": (stack("hi") - start).tolist(),
            "stop": (stop - start).tolist(),
            "held": stack("held").tolist(),
            "confidence": letters(stack("proposal.prob"), fresh, start, stop),
            "given": [self.given(rows, before[0], start[0], stop[0]), *repeat({}, len(steps) - 1)],
            "writes": writes_of(stack, rows, before, after, start),
            "drafts": self.drafts(rows, stack("proposal.token"), fresh, start),
        }
        for step, *own in zip(steps, *parts.values(), strict=True):
            line = dict(zip(parts, own, strict=True))
            told = (line[name].get("token", ()) for name in ("given", "writes", "drafts"))
            names = self.names.new(id for ids in told for id in ids)
            yield costs(step) | {"rows": rows} | line | {"vocabulary": names}

    def given(self, rows: list[int], before: Any, start: Any, stop: Any) -> Columns:
        """What stands in the texts of rows that take part for the first time."""
        new = [index for index, row in enumerate(rows) if row not in self.begun]
        self.begun.update(rows)
        position = np.arange(before.shape[1])
        text = (position >= start[new, None]) & (position < stop[new, None])
        index, at = (text & (before[new] != self.mask_id)).nonzero()
        index = np.array(new, dtype=np.int64)[index]
        return columns(rows, index, at - start[index], before[index, at]) if len(at) else {}

    def drafts(self, rows: list[int], token: Any, fresh: Any, start: Any) -> list[Columns]:
        """What the model would write at positions `fresh`, where the file has it otherwise."""
        self.fit(max(rows) + 1, fresh.shape[2])
        told, new = self.drafted[rows], np.empty_like(fresh)
        for now, here, differs in zip(token, fresh, new, strict=True):
            np.logical_and(here, told != now, out=differs)
            np.copyto(told, now, where=differs)
        self.drafted[rows] = told
        which, index, at = new.nonzero()
        found = columns(rows, index, at - start[which, index], token[which, index, at])
        return split(which, len(token), found)

    def fit(self, num_rows: int, length: int) -> None:
        """Room for so many rows and positions."""
        rows, columns = self.drafted.shape
        if num_rows > rows or length > columns:
            more = ((0, max(num_rows - rows, 0)), (0, max(length - columns, 0)))
            self.drafted = np.pad(self.drafted, more, constant_values=-1)


class Stack:
    """Fields of several steps on the host, each as one array (T, …)."""

    def __init__(self, steps: list[Step]):
        self.steps = steps

    def __call__(self, name: str) -> Any:
        pick = attrgetter(name)
        return torch.stack([pick(step) for step in self.steps]).cpu().numpy()


def costs(step: Step) -> dict[str, Any]:
    """Which step it is, and what all so far have cost."""
    cost = step.cost
    counts = {"forwards": cost.calls, "positions": cost.positions, "refreshes": cost.refreshes}
    return {"step": step.number, "seconds": round(cost.seconds, 6)} | counts


def writes_of(stack: Stack, rows: list[int], before: Any, after: Any, start: Any) -> list[Columns]:
    """The tokens that each step changed, column by column."""
    where = which, index, at = (before != after).nonzero()
    found = columns(rows, index, at - start[which, index], after[where])
    sure = numbers(stack("confidence")[where])
    parts = reasons(stack.steps, where, before[where])
    found["rule"] = [label(part, c) for part, c in zip(parts, sure, strict=True)]
    others = after[where] != stack("proposal.token")[where]
    for name in ("confidence", "proposal.margin", "proposal.entropy"):
        own = np.where(others, np.nan, stack(name)[where])
        found[name.rpartition(".")[2]] = numbers(own)
    return split(which, len(before), found)


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


def letters(prob: Any, fresh: Any, start: Any, stop: Any) -> list[list[str]]:
    """How sure the model is of its proposals at positions `fresh`, a text for each row."""
    text = CODES[np.where(fresh, (prob * 63 + 0.5).astype(np.uint8), 64)]
    every = zip(text, start.tolist(), stop.tolist(), strict=True)
    return [
        [row[lo:hi].tobytes().decode() for row, lo, hi in zip(*one, strict=True)] for one in every
    ]


def columns(rows: list[int], index: Any, position: Any, token: Any) -> Columns:
    """Tokens at positions of the rows `index`, as lists of equal length."""
    row = [rows[i] for i in index.tolist()]
    return {"row": row, "position": position.tolist(), "token": token.tolist()}


def split(which: Any, count: int, found: Columns) -> list[Columns]:
    """Columns of several steps as those of each; `which` says whose an entry is, in order."""
    ends = bounds(which, count)
    return [{name: values[a:b] for name, values in found.items()} for a, b in ends]


def numbers(values: Any) -> list[float | None]:
    """With four digits; None for what is not finite."""
    finite = np.isfinite(values)
    found = values.astype(np.float64).round(4).tolist()
    if finite.all():
        return found
    return [value if known else None for value, known in zip(found, finite.tolist(), strict=True)]
