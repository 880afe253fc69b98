"""What `dlmdecode samplers` prints: the registry as a table, and which samplers combine."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any

from dlmdecode.composition import Composition, sampler
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.registry import Registered, list_samplers, registered
from dlmdecode.settings import Settings
from dlmdecode.tables import Table

SLOT_NAMES = {"verify": "verification", "select": "selection"}
CALL, EMPTY = Settings().facts, Sampler()


def slots(entry: Registered) -> tuple[str, ...]:
    """The slots that a sampler fills, in the order of a step; none if it does not build."""
    try:
        recipe = entry.build(None, CALL)
    except (ValueError, TypeError):
        return ()
    names = [field.name for field in fields(Sampler)]
    filled = [name for name in names if getattr(recipe, name) != getattr(EMPTY, name)]
    return tuple(SLOT_NAMES.get(name, name) for name in filled)


def table() -> Table:
    """The samplers, a row each."""
    rows = []
    for entry in map(registered, list_samplers()):
        options = ", ".join(f"{k}={show(v)}" for k, v in entry.options().items())
        noted = "\n".join(f"({note})" for note in preset_notes(entry))
        filled = "+".join(record(entry)["slots"])
        rows.append(
            (entry.name, filled, f"{options}\n{noted}".strip(), entry.verified, entry.paper)
        )
    return Table(("sampler", "slots", "options", "verified", "source"), rows)


def described(names: Sequence[str], as_json: bool = False) -> str:
    """The samplers `names`, all if empty: their details, or JSON lines."""
    entries = [registered(name) for name in names or list_samplers()]
    if as_json:
        return "\n".join(json.dumps(record(entry), default=str) for entry in entries)
    return "\n\n".join(map(details, entries))


def markdown() -> str:
    """The table of the README."""
    rows = []
    for entry in map(registered, list_samplers()):
        filled = ", ".join(record(entry)["slots"])
        rows.append((f"`{entry.name}`", filled, entry.help, entry.verified, entry.paper))
    head = ("sampler", "slots", "what it does", "verified against", "source")
    return Table(head, rows).markdown()


def record(entry: Registered) -> dict[str, Any]:
    return {
        "name": entry.name,
        "slots": slots(entry) or ("selection",) * (entry.over is None),
        "help": entry.help,
        "options": entry.options(),
        "presets": {family: dict(values) for family, values in entry.presets.items()},
        "over": entry.over,
        "paper": entry.paper,
        "verified": entry.verified,
        "recorded": [*entry.recorded, *entry.second],
    }


def preset_notes(entry: Registered) -> list[str]:
    return [
        f"{family}: " + ", ".join(f"{k}={show(v)}" for k, v in values.items())
        for family, values in entry.presets.items()
    ]


def details(entry: Registered) -> str:
    lines = [f"{entry.name}  {entry.paper}", f"  {entry.help}"]
    lines.append(f"  slots: {', '.join(record(entry)['slots'])}")
    cases = ", ".join((*entry.recorded, *entry.second))
    lines.append(f"  verified against: {entry.verified}{f' ({cases})' if cases else ''}")
    if entry.over is not None:
        lines.append(f"  where nothing else chooses positions: {entry.over}")
    lines += [f"  {entry.name},{name}={show(value)}" for name, value in entry.options().items()]
    lines += [f"  published for {note}" for note in preset_notes(entry)]
    return "\n".join(lines)


def show(value: Any) -> str:
    """A value as the text of an option."""
    if value is inspect.Parameter.empty:
        return "?"
    if isinstance(value, tuple) or (isinstance(value, str) and not value.isidentifier()):
        return json.dumps(value)
    if isinstance(value, str):
        return value
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def refusal(first: str, second: str) -> str | None:
    """Why two samplers cannot be combined; None if they can."""
    try:
        sampler([first, second], context=CALL)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def compositions(names: Sequence[str] = ()) -> dict[tuple[str, str], str | None]:
    """For each pair of samplers why it does not combine, None where it does.

    Args:
        names: samplers, each with options if need be: "learn2pd,filter=FILE". All if empty.
    """
    for name in names:
        Composition.read(name, {})
    pairs = combinations(names or list_samplers(), 2)
    return {pair: refusal(*pair) for pair in pairs}


def matrix(names: Sequence[str] = ()) -> str:
    """Which pairs combine: `+` where they do, else the letter of the reason below."""
    reasons: dict[str, list[str]] = {}
    cells: dict[tuple[str, str], str] = {}
    for (first, second), reason in compositions(names).items():
        cell = "+"
        if reason is not None:
            reason = reason if "both set" not in reason else reason.split(":")[0]
            reasons.setdefault(reason, []).append(f"{first}+{second}")
            cell = letter(list(reasons).index(reason))
        cells[first, second] = cells[second, first] = cell
    names = names or list_samplers()
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{i:>4}" for i in range(1, len(names) + 1))]
    for i, name in enumerate(names, 1):
        row = "".join(f"{cells.get((name, other), ''):>4}" for other in names)
        lines.append(f"{name:<{width}}{row}  {i}")
    lines.append("")
    for i, (reason, pairs) in enumerate(reasons.items()):
        some = f"{len(pairs)} pairs" if len(pairs) > 3 else ", ".join(pairs)
        lines.append(f"{letter(i)}  {reason} ({some})")
    return "\n".join(lines).rstrip()


def partners(names: Sequence[str] = ()) -> Table:
    """The same without the reasons, for a screen that is too narrow for a matrix."""
    found: dict[str, list[str]] = {name: [] for name in names or list_samplers()}
    for (first, second), reason in compositions(names).items():
        if reason is None:
            found[first].append(second)
            found[second].append(first)
    return Table(("sampler", "combines with"), [(k, ", ".join(v)) for k, v in found.items()])


def letter(index: int) -> str:
    """a, b, … z, then aa, ab, …"""
    last = chr(ord("a") + index % 26)
    return last if index < 26 else letter(index // 26 - 1) + last
