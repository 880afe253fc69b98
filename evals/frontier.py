"""The frontier of speed and accuracy: every sampler's main option swept on one task.

    dlmdecode eval frontier arithmetic --output runs/f

Settings run on calibration problems beside the baseline. The fastest one within a budget of
accuracy is run on held-out problems and written as a preset, as `eval tune` does for one sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmdecode.composition import Composition
from dlmdecode.evals.plan import Contender
from dlmdecode.evals.plot import draw_frontier
from dlmdecode.evals.report import area_table
from dlmdecode.evals.results import write_whole
from dlmdecode.evals.summary import Run, Summary, areas, summarise
from dlmdecode.evals.tuning import LADDERS, settings
from dlmdecode.registry import list_samplers
from dlmdecode.tables import Report, Table, markdown

AXES = ("tokens_per_forward", "speed_ratio")  # of a `Summary`, against accuracy


def sweep(
    samplers: Sequence[str] | None, model: Any, arguments: Mapping[str, Any]
) -> list[Contender]:
    """Each sampler with each value of its main option: the first one that `LADDERS` knows.

    One whose main option is given, or that has none, stays as it is. Values that another option
    does not allow are left out. None is every sampler that `model` has all for.

    Raises `ValueError` for a named sampler of which no setting can be built.
    """
    found: list[Contender] = []
    for text in list_samplers() if samplers is None else samplers:
        composition, fixed = Composition.read(text, {})
        known = composition.options()
        main = next((name for name in LADDERS if name in known), None)
        grid = {} if main is None or main in fixed else {main: LADDERS[main]}
        every = settings(text, grid, len(LADDERS.get(main or "", [1])))
        usable = [each for each in every if builds(each, model, arguments)]
        if samplers is not None and not usable:
            every[0].build(arguments, model.family).bind(model)
        found += usable
    return found


def builds(contender: Contender, model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether the model has all for it, and its options allow one another."""
    try:
        contender.build(arguments, model.family).bind(model)
    except ValueError:
        return False
    return True


def pareto(lines: Sequence[Summary], axis: str) -> list[Summary]:
    """Those that no other beats in accuracy or `axis` without losing in the other, by `axis`."""

    def beaten(line: Summary) -> bool:
        mine = (line.accuracy, getattr(line, axis))
        every = ((other.accuracy, getattr(other, axis)) for other in lines)
        return any(a >= mine[0] and b >= mine[1] and (a, b) != mine for a, b in every)

    kept = [line for line in lines if not beaten(line)]
    return sorted(kept, key=lambda line: getattr(line, axis))


def table(run: Run, lines: Sequence[Summary], baseline: str) -> Report:
    """The sweep, the fastest first, and the AUP of each sampler."""
    sets = [{line.sampler for line in pareto(lines, axis)} for axis in AXES]
    head = ["sampler", "accuracy % [95 %]", "difference", "p", "TPF", "tokens/s ×", "Pareto"]
    rows = []
    for line in sorted(lines, key=lambda line: -line.tokens_per_forward):
        pair = line.pair
        marks = [word for word, some in zip(("TPF", "time"), sets, strict=True)
                 if line.sampler in some]  # fmt: skip
        rows.append([
            line.sampler,
            f"{line.accuracy:.1f} [{line.low:.1f}, {line.high:.1f}]",
            f"{pair.difference:+.1f} (+{pair.gained} −{pair.lost})",
            f"{pair.p:.3g}",
            f"{line.tokens_per_forward:.2f}",
            f"{line.speed_ratio:.2f}",
            ", ".join(marks),
        ])  # fmt: skip
    title = f"## {run.title}, {lines[0].problems} problems"
    return [title, Table(head, rows, numeric=True), *area_table(areas(run, lines, baseline))]


def write(folder: Path, baseline: str) -> Report:
    """frontier.md, .png and .svg of the run in `folder`/calibration, into `folder`; the report.

    Without matplotlib there is no picture, and the report says so.
    """
    run = Run.read(folder / "calibration")
    lines = [summarise(run, label, baseline) for label in run.rows]
    report = table(run, lines, baseline)
    write_whole(folder / "frontier.md", f"{markdown(report)}\n".encode())
    try:
        draw_frontier(run.title, lines, {axis: pareto(lines, axis) for axis in AXES}, folder)
    except ValueError as error:
        return [*report, f"no picture: {error}"]
    return report
