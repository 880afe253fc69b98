"""The commands `dlmdecode trace view` and `dlmdecode trace plot`: what was traced, looked at.

dlmdecode generate PROMPT --trace run.jsonl
dlmdecode trace view run.jsonl --html run.html
dlmdecode trace plot run.jsonl --output plots
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dlmdecode.console import printable
from dlmdecode.trace import Run, read

TOPICS = {
    "view": "a page to look at runs",
    "plot": "confidence, order, convergence and forwards as figures",
}


def add_arguments(parser: argparse.ArgumentParser, topic: str) -> None:
    """The arguments of one of `TOPICS`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN.jsonl", help="files of --trace")
    if topic == "view":
        add("--html", type=Path, required=True, metavar="FILE", help="where the page goes")
        help = "only this text of each run, counted from 0; may be repeated (all)"
        add("--row", type=int, action="append", metavar="N", help=help)
    else:
        add("--output", type=Path, required=True, metavar="DIR", help="where the figures go")
        add("--answer", metavar="PATTERN", help="what an answer looks like (the last number)")
    parser.set_defaults(run=view if topic == "view" else plot)


def runs_of(arguments: argparse.Namespace) -> list[Run]:
    return [run for path in arguments.runs for run in read(path)]


def view(arguments: argparse.Namespace) -> None:
    """Write the page."""
    from dlmdecode.trace.view import page

    text = page(runs_of(arguments), arguments.row)
    arguments.html.write_text(text, encoding="utf-8")
    print(printable(f"{arguments.html}: {len(text.encode()) / 1e3:.0f} kB", sys.stdout))


def plot(arguments: argparse.Namespace) -> None:
    """Draw the figures, and say what they show."""
    from dlmdecode.trace.plot import figures

    for line in figures(runs_of(arguments), arguments.output, arguments.answer):
        print(printable(line, sys.stdout))
