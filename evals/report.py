"""From run folders to a table, a CSV and a speed-accuracy plot.

    dlmdecode eval report DIR... [--baseline LABEL] [--output DIR]

Several folders (say, one for each prompt template) get a section each, and a table of means and
ranks over all.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlmdecode.evals.results import write_whole
from dlmdecode.evals.statistics import Area
from dlmdecode.evals.summary import (
    EXTRA_VERDICTS,
    Run,
    areas,
    summarise,
    tokens_per_second,
)
from dlmdecode.tables import Report, Table, markdown


def section(run: Run, baseline: str) -> Report:
    """One run: its table and what must be known of it."""
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
    noted = "\n".join(notes(run, baseline))
    table = Table(head, lines, numeric=True)
    return [f"## {run.title}", table, noted, *area_table(areas(run, summaries, baseline))]


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


def area_table(found: dict[str, Area]) -> Report:
    """The areas under the curves of a run; nothing where it has none."""
    if not found:
        return []
    some = next(iter(found.values()))
    lines = [
        [spec, f"{area.value:.1f}", spell(area.points), spell(area.outside) or "none"]
        for spec, area in found.items()
    ]
    title = f"AUP (y_max {some.best:.1f} %, α {some.alpha:g}, band {some.offset:g} points):"
    head = ["sampler", "AUP", "points (TPF, %)", "outside the band"]
    return [title, Table(head, lines, numeric=True)]


def spell(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"({speed:.2f}, {accuracy:.1f})" for speed, accuracy in points)


def across(runs: Sequence[Run], baselines: Sequence[str]) -> Report:
    """Means and ranks over several runs, for the samplers that all of them have."""
    shared = [label for label in runs[0].rows if all(label in run.rows for run in runs)]
    if len(runs) < 2 or not shared:
        return []
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
    return ["## All runs together", Table(head, table, numeric=True)]


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

    def report(self) -> Report:
        pairs = zip(self.runs, self.baselines, strict=True)
        sections = [part for run, baseline in pairs for part in section(run, baseline)]
        return [*sections, *across(self.runs, self.baselines)]

    def write(self, output: Path) -> None:
        """report.md, .csv, .png and .svg into `output`."""
        from dlmdecode.evals.plot import draw

        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "report.md", f"{markdown(self.report())}\n".encode())
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
