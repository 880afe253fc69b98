"""The speed-accuracy plots of a report and of a frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import Contender
from dlmdecode.evals.results import naming

MARKERS = "os^DvPX*<>hp"


def blank(width: float, height: float) -> Any:
    """A figure without a window, whatever the settings.

    Raises `ValueError` where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        fix = "a picture needs matplotlib: pip install 'dlmdecode[plot]'"
        raise ValueError(fix) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, folder: Path, name: str) -> None:
    """As PNG and SVG."""
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else None  # the same run, the same file
        path = folder / f"{name}.{kind}"
        with naming(path):
            figure.savefig(path, dpi=150, metadata=metadata)


def draw(runs: Sequence[tuple[str, Sequence[Any]]], folder: Path) -> None:
    """Accuracy with its interval over tokens per forward, a panel for each run, as PNG and SVG.

    `runs`: title and `summary.Summary` lines of each.

    Raises `ValueError` where matplotlib is missing.
    """
    figure = blank(8, 4.8 * len(runs))
    for number, (title, lines) in enumerate(runs, 1):
        axes = figure.add_subplot(len(runs), 1, number)
        curves(axes, lines, "tokens_per_forward")
        axes.set(xlabel="tokens per forward", ylabel="accuracy %", title=title)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, folder, "report")


def draw_frontier(
    title: str, lines: Sequence[Any], best: Mapping[str, Sequence[Any]], folder: Path
) -> None:
    """Accuracy with its interval over tokens per forward and over time, as frontier.png and .svg.

    `best`: for each axis, a field of `lines`, those that are joined as the Pareto set.

    Raises `ValueError` where matplotlib is missing.
    """
    figure = blank(12, 5.5)
    names = {"tokens_per_forward": "tokens per forward", "speed_ratio": "tokens/s ×"}
    for number, (axis, kept) in enumerate(best.items(), 1):
        axes = figure.add_subplot(1, len(best), number)
        curves(axes, lines, axis)
        speed, accuracy = [getattr(line, axis) for line in kept], [line.accuracy for line in kept]
        axes.plot(speed, accuracy, color="black", linewidth=2, alpha=0.4, label="Pareto set")
        axes.set(xlabel=names[axis], ylabel="accuracy %", title=title)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, folder, "frontier")


def curves(axes: Any, lines: Sequence[Any], axis: str) -> None:
    """Accuracy over a field of the lines, a curve for each sampler."""
    for k, (name, settings) in enumerate(by_sampler(lines).items()):
        settings = sorted(settings, key=lambda line: getattr(line, axis))
        axes.errorbar(
            [getattr(line, axis) for line in settings],
            [line.accuracy for line in settings],
            yerr=[
                [line.accuracy - line.low for line in settings],
                [line.high - line.accuracy for line in settings],
            ],
            marker=MARKERS[k % len(MARKERS)],
            capsize=2,
            linewidth=1,
            elinewidth=0.6,
            label=name,
        )
    axes.grid(alpha=0.3)


def by_sampler(lines: Sequence[Any]) -> dict[str, list[Any]]:
    """Settings of one sampler together: they are one curve."""
    groups: dict[str, list[Any]] = {}
    for line in lines:
        groups.setdefault(Contender.parse(line.sampler).spec, []).append(line)
    return groups
