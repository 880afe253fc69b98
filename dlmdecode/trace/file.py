"""The file of a trace: lines of JSON, one a step, of one run or of several.

A run is a line of `type` "run", its steps, and a line of `type` "end" if it came to one.
docs/trace.md has the fields.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dlmdecode.checks import require

VERSION = 1
ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class TraceFile:
    """Appends a run to a file; does nothing where `path` is None.

    Raises `OSError` for a file that cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None):
        self.file: IO[str] | None = None
        if path is not None:
            ends = ends_a_line(Path(path))
            self.file = open(path, "a", encoding="utf-8")
            self.file.write("" if ends else "\n")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, type: str, *records: dict[str, Any]) -> None:
        """Append lines, all at once."""
        assert self.file is not None
        self.file.writelines(ENCODE({"type": type} | record) + "\n" for record in records)
        self.file.flush()


def ends_a_line(path: Path) -> bool:
    """Whether what is appended to this file begins a line: a crash may have torn its last one."""
    if not path.exists() or not path.stat().st_size:
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@dataclass
class Run:
    """A run of a trace.

    Attributes:
        header: what decoded what: the fields of the line "run".
        steps: the lines "step", in order.
        end: the fields of the line "end"; None where the run did not come to it.
        vocabulary: the text of each token id that occurs.
    """

    header: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    vocabulary: dict[int, str] = field(default_factory=dict)

    def take(self, record: dict[str, Any]) -> None:
        names = record.pop("vocabulary", {})
        self.vocabulary |= {int(id): text for id, text in names.items()}
        if record["type"] == "step":
            self.steps.append(record)
        elif record["type"] == "end":
            self.end = record


def read(path: str | os.PathLike[str]) -> list[Run]:
    """The runs of a file, those that a crash cut short with the steps that they have.

    Raises:
        ValueError: the file is no trace, is of another version, or has a line that is no JSON
            elsewhere than at the end of a run.
        OSError: it cannot be read.
    """
    runs: list[Run] = []
    torn = 0  # the last line, where it is no JSON
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        record = parsed(line)
        if torn and (record is None or record["type"] != "run"):
            raise ValueError(f"trace={path}: line {torn} is no line of a trace")
        if record is None:
            torn = number
            continue
        if record["type"] == "run":
            version = record.get("version")
            fix = f"this is version {VERSION}: record it again"
            require(version == VERSION, "version", version, fix)
            whole = isinstance(record.get("kind"), str) and isinstance(record.get("rows"), list)
            require(whole, "trace", str(path), f"line {number} lacks kind or rows of its run")
            runs.append(Run(record))
        require(bool(runs), "trace", str(path), "a trace begins with a line of type run")
        runs[-1].take(record)
        torn = 0
    require(bool(runs), "trace", str(path), "there is no run in it: give a file of --trace")
    return runs


def parsed(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is cut off, or something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # of JSON and of UTF-8
        return None
    known = isinstance(record, dict) and record.get("type") in ("run", "step", "end")
    return record if known else None
