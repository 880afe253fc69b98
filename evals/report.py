"""From run folders to a table, a CSV and a speed-accuracy plot.

    dlmdecode eval report DIR... [--baseline LABEL] [--output DIR]

Every sampler is compared with the baseline on the same problems of the same run. Several folders
(say, one for each prompt template) get a section each, and a table of means and ranks over all.
"""

from __future__ import annotations

import csv
import io
import statistics as numbers
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import Contender
from dlmdecode.evals.record import read_record
from dlmdecode.evals.results import read_rows, write_whole
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
    ratio = speed / tokens_per_second(run.rows[baseline]) if speed else 0.0
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


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def section(run: Run, baseline: str) -> str:
    """One run in Markdown."""
    summaries = [summarise(run, label, baseline) for label in run.rows]
    extra = list(summaries[0].extra)
    alone = summaries[0].seconds is not None
    head = ["sampler", "accuracy % [95 %]", *(f"{name} %" for name in extra), "difference", "p",
            "NFE", "row forwards", "TPF", "tokens/s ×", "same text %",
            *(["median s"] if alone else [])]  # fmt: skip
    lines = []
    for line in summaries:
        first = line.sampler == baseline
        pair = line.pair
        lines.append([
            line.sampler,
            f"{line.accuracy:.1f} [{line.low:.1f}, {line.high:.1f}]",
            *(f"{line.extra[name]:.1f}" for name in extra),
            "baseline" if first else f"{pair.difference:+.1f} (+{pair.gained} −{pair.lost})",
            "" if first else f"{pair.p:.3g}",
            f"{line.nfe:.1f}",
            f"{line.forward_rows:.1f}",
            f"{line.tokens_per_forward:.2f}",
            f"{line.speed_ratio:.2f}",
            f"{line.agreement:.1f}",
            *([f"{line.seconds:.3g}"] if alone else []),
        ])  # fmt: skip
    text = [f"## {run.title}", "", markdown_table(head, lines), "", *notes(run, baseline)]
    found = areas(run, summaries, baseline)
    if found:
        text += ["", area_table(found)]
    return "\n".join(text)


def notes(run: Run, baseline: str) -> list[str]:
    """What a reader must know to trust the table."""
    record = run.record
    wanted, base = record["task"]["problems"], run.rows[baseline]
    said = [
        f"Difference, p (exact McNemar) and same text: against {baseline}, on the same problems. "
        "Intervals: Wilson. TPF: new tokens per forward, sum over sum.",
        f"{wanted} problems, batch {record['batch_size']}, "
        f"{record['environment']['processor']}, {record['arguments']}; "
        f"baseline {tokens_per_second(base):.1f} tokens/s.",
    ]
    for label, rows in run.rows.items():
        if len(rows) < wanted:
            said.append(f"**Unfinished**: {label} has {len(rows)} of {wanted} results.")
    every = [row for rows in run.rows.values() for row in rows]
    if cut := sum(row.get("truncated", False) for row in every):
        said.append(f"{cut} of {len(every)} prompts lost their beginning for want of room.")
    if "isolation" in every[0]:
        ways = Counter(row["isolation"] for row in every)
        said.append("Programs ran confined by " + ", ".join(f"{w} ({n})" for w, n in ways.items()))
    return said


def area_table(found: dict[str, Area]) -> str:
    some = next(iter(found.values()))
    lines = [
        [spec, f"{area.value:.1f}", spell(area.points), spell(area.outside) or "none"]
        for spec, area in found.items()
    ]
    head = f"AUP (y_max {some.best:.1f} %, α {some.alpha:g}, band {some.offset:g} points):\n\n"
    return head + markdown_table(["sampler", "AUP", "points (TPF, %)", "outside the band"], lines)


def spell(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"({speed:.2f}, {accuracy:.1f})" for speed, accuracy in points)


def across(runs: Sequence[Run], baselines: Sequence[str]) -> str:
    """Means and ranks over several runs, for the samplers that all of them have."""
    shared = [label for label in runs[0].rows if all(label in run.rows for run in runs)]
    if len(runs) < 2 or not shared:
        return ""
    lines = {
        label: [summarise(r, label, b) for r, b in zip(runs, baselines, strict=True)]
        for label in shared
    }
    table = []
    for label, found in lines.items():
        ranks = [
            1 + sum(lines[other][k].accuracy > line.accuracy for other in shared)
            for k, line in enumerate(found)
        ]
        accuracy = sum(line.accuracy for line in found) / len(found)
        speed = sum(line.tokens_per_forward for line in found) / len(found)
        table.append([label, f"{accuracy:.1f}", f"{speed:.2f}", ", ".join(map(str, ranks))])
    head = ["sampler", "mean accuracy %", "mean TPF", "rank by accuracy in each run"]
    return "\n".join(["## All runs together", "", markdown_table(head, table)])


def csv_text(runs: Sequence[Run], baselines: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    extra = [v for v in EXTRA_VERDICTS if any(v in r[0] for run in runs for r in run.rows.values())]
    writer.writerow(
        "run task template sampler problems correct accuracy low high difference gained lost p nfe "
        "forward_rows tokens_per_forward tokens_per_second speed_ratio agreement".split()
        + extra
    )
    for run, baseline in zip(runs, baselines, strict=True):
        for label in run.rows:
            line = summarise(run, label, baseline)
            task, pair = run.record["task"], line.pair
            writer.writerow([
                run.path, task.get("task"), task.get("template"), label, line.problems,
                line.correct, line.accuracy, line.low, line.high, pair.difference, pair.gained,
                pair.lost, pair.p, line.nfe, line.forward_rows, line.tokens_per_forward,
                line.tokens_per_second, line.speed_ratio, line.agreement,
                *(line.extra.get(name, "") for name in extra),
            ])  # fmt: skip
    return out.getvalue()


@dataclass(frozen=True)
class Comparison:
    """Runs, and the sampler of each that the others are compared with."""

    runs: Sequence[Run]
    baselines: Sequence[str]

    def markdown(self) -> str:
        pairs = zip(self.runs, self.baselines, strict=True)
        parts = [section(run, baseline) for run, baseline in pairs]
        return "\n\n".join(filter(None, [*parts, across(self.runs, self.baselines)])) + "\n"

    def write(self, output: Path) -> None:
        """report.md, .csv, .png and .svg into `output`."""
        from dlmdecode.evals.plot import draw

        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "report.md", self.markdown().encode())
        write_whole(output / "report.csv", csv_text(self.runs, self.baselines).encode())
        lines = [
            (run.title, [summarise(run, label, baseline) for label in run.rows])
            for run, baseline in zip(self.runs, self.baselines, strict=True)
        ]
        draw(lines, output)


def compare(paths: Sequence[Path], wanted: str | None = None) -> Comparison:
    """The runs of some folders, each with the label of its baseline."""
    runs = [Run.read(path) for path in paths]
    return Comparison(runs, [run.baseline(wanted) for run in runs])
