"""The result file: one JSON line for each problem and sampler, safe against `kill -9` at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Key = tuple[str, str]  # sampler, problem id


def key_of(row: Mapping[str, Any]) -> Key:
    return row["sampler"], row["id"]


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a result file and how many bytes they take.

    A last line that is torn (a process died while it was written) does not count.

    Raises:
        ValueError: a line before the last is no result, or one result stands there twice.
    """
    rows: list[dict[str, Any]] = []
    seen: set[Key] = set()
    good = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            key = key_of(row)
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is no result; move the file away") from None
        if not line.endswith(b"\n"):
            break
        if key in seen:
            raise ValueError(f"{path}: line {number} repeats {key}; move the file away")
        seen.add(key)
        rows.append(row)
        good += len(line)
    return rows, good


class Results:
    """An open result file, locked against a second writer.

    Raises `ValueError` where another process writes to it, or where `read_rows` does.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = open(path, "ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"{path} is being written by another run; wait for it") from None
        rows, good = read_rows(path)
        self.file.truncate(good)
        self.rows = {key_of(row): row for row in rows}

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one result; when this returns it is on disk."""
        self.rows[key_of(row)] = row
        self.file.write(line_of(row))
        self.file.flush()
        os.fsync(self.file.fileno())

    def finish(self, order: Iterable[Key]) -> None:
        """Put the lines in `order`, whatever order they arrived in."""
        content = b"".join(line_of(self.rows[key]) for key in order)
        if content != self.path.read_bytes():
            write_whole(self.path, content)


def line_of(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file such that a reader sees the old or the new content, never a part."""
    part = path.with_suffix(path.suffix + ".part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
