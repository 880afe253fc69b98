"""Figures of runs: confidence over steps, commit order, answer convergence, forwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlmdecode.checks import require
from dlmdecode.trace.drafts import last_number, matching, settled, texts
from dlmdecode.trace.file import Run
from dlmdecode.trace.steps import LEVELS, UNKNOWN
from dlmdecode.trace.view import DRAFTS, picked, title


def figures(runs: Sequence[Run], folder: Path, answer: str | None = None) -> Iterator[str]:
    """Draw the runs of `generate` into a folder; yields a line on each figure.

    Answers are the last match of the pattern `answer`, of None the last number of a text. The
    figure of their convergence is Prophet's (arXiv 2508.19982): how many texts had the answer that
    they end with, and kept it, after a share of their steps.

    Raises:
        ValueError: there is no run of `generate`, or the pattern is none.
    """
    import matplotlib

    matplotlib.use("Agg")
    find = last_number if answer is None else matching(answer)
    runs = [run for run in runs if run.header["kind"] == "generate" and run.steps]
    require(bool(runs), "runs", 0, "give a trace of generate with a step in it")
    folder.mkdir(parents=True, exist_ok=True)
    shares = [convergence(run, find) for run in runs]
    for name, draw, values in (
        ("confidence", draw_confidence, [confidence(run) for run in runs]),
        ("order", draw_order, [order(run) for run in runs]),
        ("convergence", draw_convergence, shares),
        ("nfe", draw_nfe, [forwards(run) for run in runs]),
    ):
        save(folder / f"{name}.png", draw, list(zip(map(title, runs), values, strict=True)))
        yield str(folder / f"{name}.png")
    for run, found in zip(runs, shares, strict=True):
        half = sum(share <= 0.5 for share in found)
        yield f"{title(run)}: {half} of {len(found)} answers settled by half of their steps"


def confidence(run: Run) -> Any:
    """The mean probability of what each step proposed, (steps,)."""
    level = np.zeros(256)
    level[LEVELS] = np.arange(64) / 63
    every = []
    for step in run.steps:
        codes = np.frombuffer("".join(step["confidence"]).encode(), dtype=np.uint8)
        known = codes[codes != UNKNOWN]
        every.append(level[known].mean() if len(known) else np.nan)
    return np.array(every)


def order(run: Run) -> Any:
    """Step and position of each write of the first text, (n, 2)."""
    found = [
        (step["step"], at)
        for step in run.steps
        for at, token in picked(step["writes"], 0, DRAFTS)
        if token != run.header["mask_id"]
    ]
    return np.array(found).reshape(-1, 2)


def convergence(run: Run, answer: Any) -> list[float]:
    """For each text with an answer, the share of its steps after which the answer stood."""
    shares = []
    for row in range(len(run.header["rows"])):
        answers = [answer(text) for text in texts(run, row)]
        if answers and answers[-1] is not None:
            shares.append(settled(answers) / len(answers))
    return shares


def forwards(run: Run) -> list[int]:
    """Forwards of each text."""
    nfe = {row: n for step in run.steps for row, n in zip(step["rows"], step["nfe"], strict=True)}
    return list(nfe.values())


def draw_confidence(axes: Any, name: str, values: Any) -> None:
    axes.plot(np.arange(1, len(values) + 1), values, label=name)
    axes.set(xlabel="step", ylabel="mean probability of proposals", ylim=(0, 1.02))


def draw_order(axes: Any, name: str, values: Any) -> None:
    axes.scatter(values[:, 1], values[:, 0], s=8, label=name)
    axes.set(xlabel="position", ylabel="step that wrote it")


def draw_convergence(axes: Any, name: str, values: list[float]) -> None:
    at = np.linspace(0, 1, 101)
    axes.plot(at, [np.mean(np.array(values) <= share) if values else 0 for share in at], label=name)
    axes.set(xlabel="share of the steps", ylabel="answers that have settled", ylim=(0, 1.02))


def draw_nfe(axes: Any, name: str, values: list[int]) -> None:
    axes.hist(values, bins=min(20, max(values) - min(values) + 1), alpha=0.6, label=name)
    axes.set(xlabel="forwards (NFE)", ylabel="texts")


def save(path: Path, draw: Any, named: Sequence[tuple[str, Any]]) -> None:
    """One picture of all runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, values in named:
        draw(axes, name.replace("$", r"\$"), values)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)
