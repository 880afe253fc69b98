"""Find the fastest setting of a sampler that loses no more than a budget of accuracy.

Every setting of a grid is run on the calibration problems beside the baseline; the fastest one
whose accuracy, on the same problems, is within the budget is then run once on held-out problems.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import Contender
from dlmdecode.evals.results import write_whole
from dlmdecode.evals.summary import Run, Summary, summarise
from dlmdecode.evals.task import Task, digest
from dlmdecode.options import assignment
from dlmdecode.settings import parse

LADDERS: dict[str, list[Any]] = {  # tried where --search names no values
    "threshold": [0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5],
    "factor": [0.5, 1.0, 1.5, 2.0],
    "gamma": [0.01, 0.05, 0.1, 0.5, 1.0],
    "delta": [0.1, 0.3, 0.5],
    "relaxed": [0.75, 0.6, 0.5],
    "radius": [2, 4, 8],
    "draft_steps": [2, 4, 8],
}


@dataclass(frozen=True)
class Outcome:
    """What tuning found; `chosen` is None where no setting stays within the budget."""

    calibration: Sequence[Summary]
    chosen: Contender | None
    heldout: Summary | None
    confirmed: bool


def parse_search(pairs: Iterable[str], options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """`["threshold=0.9,0.8"]` as a grid; without pairs, the ladders of the sampler's `options`."""
    grid: dict[str, list[Any]] = {}
    for pair in pairs:
        try:
            name, values = assignment(pair)
        except ValueError as error:
            raise ValueError(f"--search: {error}") from None
        grid[name] = [parse(name, value) for value in values.split(",")]
    if not grid:
        grid = {name: ladder for name, ladder in LADDERS.items() if name in options}
    if not grid:
        known = ", ".join(options) or "none"
        raise ValueError(f"nothing to search: give --search option=value,value (it takes {known})")
    return grid


def settings(sampler: str, grid: Mapping[str, Sequence[Any]], limit: int) -> list[Contender]:
    """Every combination of the grid, each under a label that is its `--sampler` argument."""
    found = []
    for values in itertools.product(*grid.values()):
        pairs = [f"{k}={json.dumps(v)}" for k, v in zip(grid, values, strict=True)]
        found.append(Contender.parse(",".join([sampler, *pairs])))
    if len(found) > limit:
        raise ValueError(f"the grid has {len(found)} settings, more than --max-settings {limit}")
    return found


def choose(lines: Sequence[Summary], baseline: str, budget: float) -> Summary | None:
    """The most tokens per forward among those that lose at most `budget` percentage points."""
    within = [x for x in lines if x.sampler != baseline and x.pair.difference >= -budget]
    return max(within, key=lambda line: line.tokens_per_forward, default=None)


def tune(
    tasks: tuple[Task, Task],
    candidates: Sequence[Contender],
    baseline: Contender,
    budget: float,
    run: Callable[[Task, Sequence[Contender], Path], Any],
    output: Path,
) -> Outcome:
    """Search on `tasks[0]`, confirm on `tasks[1]`.

    Args:
        budget: accuracy that may be lost, in percentage points.
        run: evaluates contenders on a task into a folder, as `runner.evaluate` does.
        output: gets the folders calibration and heldout, in it one for each setting that was
            chosen, and preset.json.
    """
    if not budget >= 0:
        raise ValueError(f"budget={budget!r}: give percentage points, 0 or more")
    lines = compare(tasks[0], [baseline, *candidates], run, output / "calibration", baseline)
    (output / "preset.json").unlink(missing_ok=True)  # of a run over fewer problems
    best = choose(lines, baseline.label, budget)
    if best is None:
        return Outcome(lines, None, None, False)
    chosen = next(c for c in candidates if c.label == best.sampler)
    folder = output / "heldout" / digest(chosen.label)[:8]
    held = compare(tasks[1], [baseline, chosen], run, folder, baseline)[1]
    outcome = Outcome(lines, chosen, held, held.pair.difference >= -budget)
    write_whole(output / "preset.json", json.dumps(preset(outcome), indent=2).encode() + b"\n")
    return outcome


def compare(
    task: Task, contenders: Sequence[Contender], run: Callable, folder: Path, baseline: Contender
) -> list[Summary]:
    run(task, contenders, folder)
    found = Run.read(folder)
    return [summarise(found, contender.label, baseline.label) for contender in contenders]


def preset(outcome: Outcome) -> dict[str, Any]:
    """The chosen setting with the evidence for it."""
    assert outcome.chosen and outcome.heldout
    held = outcome.heldout
    return {
        "sampler": outcome.chosen.spec,
        "options": outcome.chosen.options,
        "confirmed": outcome.confirmed,
        "heldout": {
            "problems": held.problems,
            "accuracy": held.accuracy,
            "difference": held.pair.difference,
            "gained": held.pair.gained,
            "lost": held.pair.lost,
            "p": held.pair.p,
            "tokens_per_forward": held.tokens_per_forward,
        },
    }


def spell(outcome: Outcome, baseline: str, budget: float) -> str:
    """What `dlmdecode eval tune` prints."""
    lines = ["calibration: difference to " + baseline + ", tokens per forward"]
    for line in sorted(outcome.calibration, key=lambda line: -line.tokens_per_forward):
        difference = f"{line.pair.difference:+6.1f}  {line.tokens_per_forward:6.2f}"
        lines.append(f"  {difference}  {line.sampler}")
    if outcome.chosen is None or outcome.heldout is None:
        return "\n".join([*lines, f"no setting stays within {budget:g} points"])
    held, pair = outcome.heldout, outcome.heldout.pair
    lines.append(
        f"held out: {pair.difference:+.1f} points (+{pair.gained} −{pair.lost} of {pair.total}, "
        f"p {pair.p:.3g}), {held.tokens_per_forward:.2f} tokens per forward: "
        + ("confirmed" if outcome.confirmed else f"NOT within {budget:g} points")
    )
    lines.append(f"dlmdecode.generate(model, prompt, sampler={outcome.chosen.label!r})")
    lines.append(f"--sampler {outcome.chosen.label}")
    return "\n".join(lines)
