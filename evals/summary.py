"""A run folder read back, and what its results come to, sampler by sampler.

Every sampler is compared with the baseline on the same problems of the same run.
"""

from __future__ import annotations

import statistics as numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import Contender
from dlmdecode.evals.record import read_record
from dlmdecode.evals.results import read_rows
from dlmdecode.evals.statistics import Area, Paired, aup, interval, paired

EXTRA_VERDICTS = ("strict", "flexible")


@dataclass(frozen=True)
class Run:
    """One run folder: its record and its result rows by sampler, in the file's order."""

    path: Path
    record: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Raises `ValueError` where `path` is no run folder, is damaged or has no result yet."""
        if not (path / "run.json").is_file():
            raise ValueError(f"{path} is no run folder (no run.json); give what --output named")
        record, results = read_record(path / "run.json"), path / "results.jsonl"
        rows: dict[str, list[dict[str, Any]]] = {s["label"]: [] for s in record["samplers"]}
        for number, row in enumerate(read_rows(results)[0], 1):
            if row["sampler"] not in rows:
                raise ValueError(
                    f"{results}: line {number} is of {row['sampler']!r}, which run.json lacks"
                )
            rows[row["sampler"]].append(row)
        rows = {label: found for label, found in rows.items() if found}
        if not rows:
            raise ValueError(f"{path} holds no results yet")
        return cls(path, record, rows)

    @property
    def title(self) -> str:
        task = self.record["task"]
        parts = [task.get("task"), f"template {task.get('template')}", f"{task.get('shots')} shots",
                 f"model {self.record['model'].get('name')}",
                 *(f"isolation {way}" for way in [task.get("isolation")] if way)]  # fmt: skip
        return ", ".join(str(part) for part in parts)

    def baseline(self, wanted: str | None) -> str:
        """The label to compare with: `wanted`, or "vanilla", or the first of the run."""
        if wanted is None:
            return "vanilla" if "vanilla" in self.rows else next(iter(self.rows))
        if wanted not in self.rows:
            raise ValueError(f"--baseline {wanted!r}: {self.path} has {', '.join(self.rows)}")
        return wanted


@dataclass(frozen=True)
class Summary:
    """One line of the table. Shares in percent; `seconds`: median, where batches had one row."""

    sampler: str
    problems: int
    correct: int
    low: float
    high: float
    extra: dict[str, float]
    nfe: float
    forward_rows: float
    tokens_per_forward: float
    tokens_per_second: float
    speed_ratio: float
    seconds: float | None
    pair: Paired
    agreement: float

    @property
    def accuracy(self) -> float:
        return 100 * self.correct / self.problems


def total(rows: Sequence[dict[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows)


def summarise(run: Run, label: str, baseline: str) -> Summary:
    """The line of one sampler."""
    rows, base = run.rows[label], {row["id"]: row for row in run.rows[baseline]}
    common = [(base[row["id"]], row) for row in rows if row["id"] in base]
    correct = sum(row["correct"] for row in rows)
    low, high = interval(correct, len(rows))
    speed = tokens_per_second(rows)
    base_speed = tokens_per_second(run.rows[baseline])
    ratio = speed / base_speed if base_speed else float(speed == 0)  # nothing over nothing is 1
    alone = run.record["batch_size"] == 1
    return Summary(
        sampler=label,
        problems=len(rows),
        correct=correct,
        low=100 * low,
        high=100 * high,
        extra={v: 100 * total(rows, v) / len(rows) for v in EXTRA_VERDICTS if v in rows[0]},
        nfe=total(rows, "nfe") / len(rows),
        forward_rows=total(rows, "forward_rows") / len(rows),
        tokens_per_forward=total(rows, "new_tokens") / max(total(rows, "nfe"), 1),
        tokens_per_second=speed,
        speed_ratio=ratio,
        seconds=numbers.median(row["seconds"] for row in rows) if alone else None,
        pair=paired([b["correct"] for b, _ in common], [row["correct"] for _, row in common]),
        agreement=100 * sum(b["text"] == row["text"] for b, row in common) / len(common),
    )


def tokens_per_second(rows: Sequence[dict[str, Any]]) -> float:
    return total(rows, "new_tokens") / max(total(rows, "seconds"), 1e-9)


def areas(run: Run, summaries: Sequence[Summary], baseline: str) -> dict[str, Area]:
    """AUP of every sampler: the points of its settings and the baseline's, where it starts."""
    points: dict[str, list[tuple[float, float]]] = {}
    start = []
    for line in summaries:
        point = (line.tokens_per_forward, line.accuracy)
        if line.sampler == baseline:
            start = [point]
        else:
            points.setdefault(Contender.parse(line.sampler).spec, []).append(point)
    best = max(line.accuracy for line in summaries)
    if best <= 0:
        return {}
    named = {baseline: start, **{spec: start + found for spec, found in points.items()}}
    return {spec: aup(found, best) for spec, found in named.items()}
