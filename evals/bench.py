"""Samplers against each other on held-out word problems: accuracy, forwards, and wall-clock time.

    dlmdecode bench samplers --limit 500 --output benchmarks/results/samplers.md

Batches are decoded by one sampler after the other, so that whatever else the machine does falls on
all of them alike. Times are ratios to `vanilla` in the same run, without loading or warm-up. With
`--output FILE` the answers are kept in the folder FILE.run, a run as `dlmdecode eval` has them: the
same command goes on where it was stopped, and a larger `--limit` adds problems.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dlmdecode.checks import whole
from dlmdecode.console import add_model, load_model
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.plan import Contender
from dlmdecode.evals.record import HOW, model_record
from dlmdecode.evals.results import naming
from dlmdecode.evals.runner import Worker, evaluate, resumable
from dlmdecode.evals.statistics import interval
from dlmdecode.models.loading import find_folder
from dlmdecode.options import SYNTAX
from dlmdecode.registry import list_samplers
from dlmdecode.tables import Report, Table, markdown, show_report

BASELINE = "vanilla"
COMPOSITIONS = (
    "credit+prophet",
    "localleap+prophet",
    "adablock+credit",
    "adablock+credit+localleap",
    "adablock+credit+localleap+prophet",
    "freedave+prophet",
)
THRESHOLDS = tuple(f"threshold,threshold={value}" for value in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8))


@dataclass(frozen=True)
class Score:
    """Totals of one sampler."""

    name: str
    right: list[bool]
    nfe: int
    new_tokens: int
    seconds: float

    @classmethod
    def of(cls, name: str, rows: Sequence[dict[str, Any]]) -> Score:
        """The totals of a run's result rows."""
        own = [row for row in rows if row["sampler"] == name]
        nfe, new_tokens, seconds = (
            sum(row[key] for row in own) for key in ("nfe", "new_tokens", "seconds")
        )
        return cls(name, [row["correct"] for row in own], nfe, new_tokens, seconds)

    def row(self, baseline: float) -> list[str]:
        """A row of the table; `baseline` is the time that vanilla took."""
        total = len(self.right)
        low, high = interval(sum(self.right), total)
        accuracy = f"{sum(self.right) / total:.1%} [{low:.1%}, {high:.1%}]"
        rate, speed = self.new_tokens / max(self.nfe, 1), baseline / self.seconds
        return [self.name, accuracy, f"{self.nfe / total:.1f}", f"{rate:.2f}", f"{speed:.2f}×"]


def built(name: str, model: Any, max_new_tokens: int) -> None:
    """Raise `ValueError` or `TypeError` for a sampler that this model cannot run."""
    shape = {"max_new_tokens": max_new_tokens, "block_length": min(32, max_new_tokens)}
    Contender.parse(name).build({**shape, "steps": None}, model.family).bind(model)


def buildable(names: Sequence[str], model: Any) -> list[str]:
    """Those of `names` that this model has all for (a trained filter, say)."""

    def builds(name: str) -> bool:
        try:
            built(name, model, 128)
        except (ValueError, TypeError):
            return False
        return True

    return [name for name in names if builds(name)]


def measure(
    model: Any,
    names: Sequence[str],
    limit: int,
    batch_size: int,
    max_new_tokens: int,
    output: Path,
    record: dict[str, Any] | None = None,
    progress: bool = False,
) -> list[Score]:
    """Decode the first `limit` held-out problems with every sampler; vanilla comes first.

    Args:
        names: as `generate` takes them, options behind commas: "threshold,threshold=0.5".
        output: folder of the run; what it already holds is not done again.
        record: says which model this is.
    """
    labels = list(dict.fromkeys([BASELINE, *names]))
    arguments = {"max_new_tokens": max_new_tokens}
    rows = evaluate(
        Arithmetic(limit),
        [Contender.parse(label) for label in labels],
        output,
        lambda: Worker(lambda: model, arguments),
        arguments=arguments,
        model=record,
        batch_size=batch_size,
        progress=progress,
    )
    return [Score.of(label, rows) for label in labels]


def report(scores: Sequence[Score]) -> Report:
    baseline = next(score.seconds for score in scores if score.name == BASELINE)
    head = ["sampler", "accuracy [95 % interval]", "NFE a problem", "tokens per forward", "speed"]
    table = Table(head, [score.row(baseline) for score in scores])
    return [f"{len(scores[0].right)} held-out problems", table]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--sampler",
        action="append",
        metavar=SYNTAX,
        help="repeatable; without it all, some compositions and values of threshold",
    )
    parser.add_argument("--limit", type=int, default=500, help="problems (500)")
    parser.add_argument("--batch-size", type=int, default=16, help="problems at a time (16)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="canvas length (128)")
    parser.add_argument(
        "--output", type=Path, help="also write the table to this file, and keep the run beside it"
    )


def run(arguments: argparse.Namespace) -> None:
    for name in ("limit", "batch_size", "max_new_tokens"):
        whole(name, vars(arguments)[name])
    model = load_model(arguments)
    names = arguments.sampler or buildable([*list_samplers(), *THRESHOLDS, *COMPOSITIONS], model)
    for name in names:  # what is wrong with one is said before any is run
        built(name, model, arguments.max_new_tokens)
    shape = (arguments.limit, arguments.batch_size, arguments.max_new_tokens)
    folder = find_folder(arguments.model, arguments.revision)
    record = model_record(folder, arguments.model, arguments.revision)
    record |= {name: vars(arguments)[name] for name in HOW}
    output = arguments.output
    if output is None:
        with TemporaryDirectory() as unkept:
            scores = measure(model, names, *shape, Path(unkept), record, progress=True)
        show_report(report(scores))
        return
    kept = output.with_name(f"{output.name}.run")
    with resumable(kept):
        scores = measure(model, names, *shape, kept, record, progress=True)
    show_report(report(scores))
    with naming(output):
        output.write_text(f"{markdown(report(scores))}\n", encoding="utf-8")
