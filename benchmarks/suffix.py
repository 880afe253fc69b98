"""What a suffix window saves, and what it costs: one line for each window and canvas.

    python benchmarks/suffix.py                                           # the table of lengths
    python benchmarks/suffix.py --model tiny-dream --lengths 128 --windows none 0 16 32 32,1
    python benchmarks/suffix.py --task functions --lengths 128 --windows none 0 32

`--windows` are "suffix" or "suffix,suffix_tail", the first one being what the others are compared
with (exact McNemar test on the same problems; "today" is its run on the shortest canvas). A canvas
that is longer than the model addresses is decoded all the same, by its rotary code beyond training:
with a window nothing beyond it is ever seen before the text gets there. `--whole` limits the
problems of such canvases without a window, whose forwards are long.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

import dlmdecode
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.functions_task import Functions
from dlmdecode.evals.statistics import paired
from dlmdecode.evals.task import Task

HEAD = ("canvas", "suffix", "tail", "problems", "right", "difference", "p", "NFE", "positions")


def read(text: str) -> tuple[int | None, int]:
    """The window that "none", "32" or "32,1" mean."""
    suffix, _, tail = text.partition(",")
    return (None if suffix == "none" else int(suffix)), int(tail or 0)


def answered(
    model: Any, task: Task, length: int, window: tuple[int | None, int], options: dict[str, Any]
) -> dict[str, Any]:
    """Verdicts on the problems, and what their texts cost."""
    verdicts: list[bool] = []
    nfe = positions = 0
    suffix, tail = window
    by_length = sorted(range(len(task)), key=lambda i: len(str(task.prompt(i))))
    right = dict.fromkeys(range(len(task)), False)
    for first in range(0, len(task), options["batch"]):
        some = by_length[first : first + options["batch"]]
        out = dlmdecode.generate(
            model,
            [task.prompt(i) for i in some],
            options["sampler"],
            max_new_tokens=length,
            suffix=suffix,
            suffix_tail=tail,
        )
        right |= {i: task.grade(i, text) for i, text in zip(some, out.texts or [], strict=True)}
        nfe, positions = nfe + sum(out.nfe), positions + int(out.stats["forward_positions"])
    verdicts = list(right.values())
    return {
        "canvas": length,
        "suffix": suffix,
        "tail": tail,
        "problems": len(task),
        "right": sum(verdicts),
        "NFE": round(nfe / len(task), 2),
        "positions": round(positions / len(task), 1),
        "verdicts": verdicts,
    }


def table(model: Any, task: Task, options: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(("{:>11}" * len(HEAD)).format(*HEAD), flush=True)
    limit, model.max_length = model.max_length, None
    for length in options["lengths"]:
        for window in options["windows"]:
            long = window[0] is None and length + 96 > (limit or length)
            some = task.first(min(options["whole"], len(task))) if long else task
            row = answered(model, some, length, window, options)
            today = (rows or [row])[0]["verdicts"][: len(some)]
            test = paired(today, row["verdicts"])
            row |= {"difference": round(test.difference, 1), "p": round(test.p, 3)}
            rows.append(row)
            print(("{!s:>11}" * len(HEAD)).format(*(row[name] for name in HEAD)), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", default="threshold")
    parser.add_argument("--task", choices=("arithmetic", "functions"), default="arithmetic")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--whole", type=int, default=10)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--windows", type=read, nargs="+", default=[(None, 0), (0, 0), (32, 0)])
    parser.add_argument("--output", type=Path, help="where the rows go, as JSON")
    options = vars(parser.parse_args())
    print(f"{options['model']}, {options['task']}, {options['sampler']}; per problem; ", end="")
    print(f"torch {torch.__version__} on {platform.machine()}")
    if options["task"] == "arithmetic":
        task: Task = Arithmetic(options["problems"])
    else:
        task = Functions(options["problems"], allow_code_execution=True)
    rows = table(dlmdecode.load(options["model"]), task, options)
    if output := options.pop("output"):
        known = {name: value for name, value in options.items() if name != "windows"}
        output.write_text(json.dumps({"arguments": known, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
