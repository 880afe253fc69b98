"""The result file: a JSON line for each problem and sampler, safe against `kill -9` at any time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Key = tuple[str, str]  # sampler, problem id

NUMBER = (int, float)
FIELDS: dict[str, Any] = {"sampler": str, "id": (str, int), "correct": int, "text": str, "nfe": int,
                          "new_tokens": int, "forward_rows": NUMBER, "seconds": NUMBER}  # fmt: skip
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def key_of(row: Mapping[str, Any]) -> Key:
    return row["sampler"], row["id"]


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a result file and how many bytes they take.

    A last line that is torn (a process died while it was written) does not count.

    Raises:
        ValueError: a line before the last is no result, or one result stands there twice; names
            file and line.
    """
    rows: list[dict[str, Any]] = []
    seen: set[Key] = set()
    good = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        row = result_of(line)
        if number == len(lines) and (row is None or not line.endswith(b"\n")):
            break
        fix = "mend or delete the line, and the same command goes on"
        if row is None:
            raise ValueError(f"{path}: line {number} is no result; {fix}")
        if key_of(row) in seen:
            raise ValueError(f"{path}: line {number} repeats {key_of(row)}; {fix}")
        seen.add(key_of(row))
        rows.append(row)
        good += len(line)
    return rows, good


def result_of(line: bytes) -> dict[str, Any] | None:
    """The result that a line holds; None where it holds none, or not all of it."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and all(isinstance(row.get(f), t) for f, t in FIELDS.items())
    return row if whole else None


class Results:
    """An open result file, locked against a second writer; read only where the disk is.

    Raises `ValueError` where another process writes to it, or where `read_rows` does.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = open(path, "ab", buffering=0)
        except OSError as error:
            if error.errno not in READ_ONLY or not path.exists():
                raise
            self.file, self.writable = open(path, "rb", buffering=0), False
        else:
            self.writable = True
            self.lock()
        rows, good = read_rows(path)
        if self.writable:
            self.file.truncate(good)
        self.rows = {key_of(row): row for row in rows}

    def lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"{self.path} is being written by another run; wait for it") from None

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one result; when this returns it is on disk."""
        with naming(self.path):
            write_all(self.file, line_of(row))
            os.fsync(self.file.fileno())
        self.rows[key_of(row)] = row

    def finish(self, order: Iterable[Key]) -> None:
        """Put the lines in `order`, whatever order they arrived in."""
        content = b"".join(line_of(self.rows[key]) for key in order)
        if content != self.path.read_bytes():
            write_whole(self.path, content)


def line_of(row: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which UTF-8 does not have, stays an escape."""
    text = json.dumps(row, indent=indent, ensure_ascii=False)
    return text.encode(errors="backslashreplace") + b"\n"


def write_all(file: Any, content: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    while content:
        content = content[file.write(content) :]


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file such that a reader sees the old or the new content, never a part."""
    part = path.with_suffix(path.suffix + ".part")
    with naming(part):
        with open(part, "wb", buffering=0) as file:
            write_all(file, content)
            os.fsync(file.fileno())
        os.replace(part, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the disk (no space, say) the name of the file that it concerns."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
