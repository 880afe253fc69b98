"""The speed-accuracy plot of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import Contender
from dlmdecode.evals.results import naming

MARKERS = "os^DvPX*<>hp"


def draw(runs: Sequence[tuple[str, Sequence[Any]]], folder: Path) -> None:
    """Accuracy with its interval over tokens per forward, a panel for each run, as PNG and SVG.

    `runs`: title and `summary.Summary` lines of each.

    Raises `ValueError` where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("a report needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(8, 4.8 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the settings
    for number, (title, lines) in enumerate(runs, 1):
        axes = figure.add_subplot(len(runs), 1, number)
        for k, (name, settings) in enumerate(by_sampler(lines).items()):
            settings = sorted(settings, key=lambda line: line.tokens_per_forward)
            speed = [line.tokens_per_forward for line in settings]
            accuracy = [line.accuracy for line in settings]
            below = [line.accuracy - line.low for line in settings]
            above = [line.high - line.accuracy for line in settings]
            axes.errorbar(
                speed,
                accuracy,
                yerr=[below, above],
                marker=MARKERS[k % len(MARKERS)],
                capsize=2,
                linewidth=1,
                elinewidth=0.6,
                label=name,
            )
        axes.set(xlabel="tokens per forward", ylabel="accuracy %", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else None  # the same run, the same file
        path = folder / f"report.{kind}"
        with naming(path):
            figure.savefig(path, dpi=150, metadata=metadata)


def by_sampler(lines: Sequence[Any]) -> dict[str, list[Any]]:
    """Settings of one sampler together: they are one curve."""
    groups: dict[str, list[Any]] = {}
    for line in lines:
        groups.setdefault(Contender.parse(line.sampler).spec, []).append(line)
    return groups
