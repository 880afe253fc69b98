"""What the runner asks of a benchmark."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Prompt = str | list[dict[str, str]]  # text, or chat messages


class Task(ABC):
    """A list of problems with a prompt and a grader each."""

    name: str
    chat = False  # True: prompts are chat messages

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def prompt(self, i: int) -> Prompt:
        """What the model is given for problem `i`."""

    @abstractmethod
    def score(self, i: int, text: str) -> dict[str, Any]:
        """Verdict on `text`: `correct` (bool), and what else the result line should say."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `run.json` records, so that the same problems can be asked again."""

    def id(self, i: int) -> str:
        """The name of problem `i`, stable over runs."""
        return f"{self.name}/{i}"

    def grade(self, i: int, text: str) -> bool:
        return bool(self.score(i, text)["correct"])

    def first(self, number: int) -> Task:
        """The first problems only; a run of them is extended by one of more."""
        return Subset(self, range(number))

    def split(self, seed: int) -> tuple[Task, Task]:
        """Calibration and held-out problems: two halves of a permutation drawn from `seed`."""
        import random

        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        half = len(order) // 2
        return Subset(self, order[:half]), Subset(self, order[half:])


class Subset(Task):
    """Some problems of a task, under their own ids."""

    def __init__(self, task: Task, chosen: Sequence[int]):
        whole, places = (task.task, task.chosen) if isinstance(task, Subset) else (task, None)
        self.task: Task = whole
        self.chosen: list[int] = [i if places is None else places[i] for i in chosen]
        self.name, self.chat = task.name, task.chat

    def __len__(self) -> int:
        return len(self.chosen)

    def prompt(self, i: int) -> Prompt:
        return self.task.prompt(self.chosen[i])

    def score(self, i: int, text: str) -> dict[str, Any]:
        return self.task.score(self.chosen[i], text)

    def id(self, i: int) -> str:
        return self.task.id(self.chosen[i])

    def describe(self) -> dict[str, Any]:
        described = {**self.task.describe(), "problems": len(self)}
        if self.chosen != list(range(len(self))):
            described["subset"] = digest(self.chosen)
        return described


def cut(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of the stop strings."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


def digest(content: Any) -> str:
    """SHA-256 of bytes, or of the JSON form of anything else."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True, ensure_ascii=False).encode(
            errors="surrogatepass"
        )
    return hashlib.sha256(content).hexdigest()


def read_jsonl(path: str | Path, fields: Sequence[str], option: str) -> list[Mapping[str, Any]]:
    """The rows of a JSONL file (`.gz` or not), each an object with texts under `fields`.

    Raises `ValueError` that names the command line's `option`, the file and the line.
    """
    import gzip
    import zlib

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{option} {path}: no such file; give a JSONL file")
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{option} {path}: it is damaged or not UTF-8: {error}") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold other line separators
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{option} {path}: line {number} is not JSON") from None
        missing = [f for f in fields if not isinstance(row, dict) or f not in row]
        if missing:
            raise ValueError(f"{option} {path}: line {number} has no {', '.join(missing)}")
        for field in fields:
            if not isinstance(row[field], str):
                raise ValueError(
                    f"{option} {path}: line {number} has {field}={row[field]!r}: give text"
                )
        rows.append(row)
    if not rows:
        raise ValueError(f"{option} {path}: the file is empty")
    return rows
