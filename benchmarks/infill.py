"""A line taken out of the embedded functions: written between what is around it, or from the left.

    python benchmarks/infill.py --allow-code-execution
    python benchmarks/infill.py --allow-code-execution --sampler vanilla --slack 0

The line before the last one of each body is taken out. `infill` gets a gap of its number of tokens,
and `--slack` more; `left` is decoding from the text before the line alone, so many tokens, and
`first line` decodes `--canvas` tokens and keeps the first line. The rest of the body stands behind
all of them, and the program is judged by the tests of the task (a body as it was is right without a
run). The docstring says what each line does, so that nothing is to be gained from behind it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dlmdecode
from dlmdecode.evals import sandbox
from dlmdecode.evals.functions import Exercise
from dlmdecode.evals.functions_task import Functions
from dlmdecode.evals.statistics import paired

HEAD = ("way", "problems", "right", "as it was", "points over left", "p", "NFE")


@dataclass
class Hole:
    """An exercise, and the ids before, in and behind the line that is taken out."""

    exercise: Exercise
    before: list[int]
    line: list[int]
    behind: list[int]
    question: int  # tokens of `before` that are no body


def hole(exercise: Exercise, tokenizer: Any) -> Hole:
    asked = tokenizer(exercise.question)["input_ids"]
    lines: list[list[int]] = [[]]
    for id in tokenizer(exercise.solution, add_special_tokens=False)["input_ids"]:
        if tokenizer.decode([id]).startswith("\n   ") and lines[-1]:
            lines.append([])
        lines[-1].append(id)
    *before, line, last = lines
    return Hole(exercise, asked + sum(before, []), line, last, len(asked))


def infilled(model: Any, holes: list[Hole], slack: int, sampler: str) -> tuple[list[str], int]:
    """The bodies with the line written between the others, and the forwards of all rows."""
    ids = torch.tensor
    rows = [[ids(h.before), len(h.line) + slack, ids(h.behind)] for h in holes]
    out = dlmdecode.infill(model, rows, sampler, batch_size=25)
    gaps = [gap for (gap,) in out.gaps or []]
    return [body(model, h, gap) for h, gap in zip(holes, gaps, strict=True)], sum(out.nfe)


def from_the_left(
    model: Any, holes: list[Hole], canvas: int | None, sampler: str
) -> tuple[list[str], int]:
    """The same with a line that was written without the last one; None: of as many tokens."""
    bodies, nfe = [], 0
    for h in holes:
        length = canvas or len(h.line)
        out = dlmdecode.generate(model, torch.tensor(h.before), sampler, max_new_tokens=length)
        line = (out.texts or [""])[0]
        if canvas is not None:
            head = len(line) - len(line.lstrip("\n"))
            line = line[:head] + line[head:].split("\n")[0]
        bodies.append(body(model, h, line))
        nfe += sum(out.nfe)
    return bodies, nfe


def body(model: Any, hole: Hole, line: str) -> str:
    decode = model.tokenizer.decode
    return decode(hole.before[hole.question :]) + line + decode(hole.behind)


def right(hole: Hole, text: str, isolation: str) -> bool:
    one = hole.exercise
    problem = {"prompt": one.question, "test": one.check, "entry_point": one.name}
    return text == one.solution or sandbox.check(problem, text, 10.0, isolation).passed


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", default="threshold")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--slack", type=int, nargs="*", default=[0, 4])
    parser.add_argument("--canvas", type=int, default=64)
    parser.add_argument("--allow-code-execution", action="store_true")
    parser.add_argument("--weak-isolation", action="store_true")
    parser.add_argument("--json", type=Path, help="a file for the results")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    model, sampler = dlmdecode.load(arguments.model), arguments.sampler
    task = Functions(
        arguments.limit,
        allow_code_execution=arguments.allow_code_execution,
        weak_isolation=arguments.weak_isolation,
    )
    holes = [hole(one, model.tokenizer) for one in task.exercises]
    ways = {
        "left": lambda: from_the_left(model, holes, None, sampler),
        "first line": lambda: from_the_left(model, holes, arguments.canvas, sampler),
    }
    for slack in arguments.slack:
        ways[f"infill +{slack}"] = lambda slack=slack: infilled(model, holes, slack, sampler)
    found: list[dict[str, Any]] = []
    verdicts: dict[str, list[bool]] = {}
    print(" | ".join(HEAD))
    for way, write in ways.items():
        bodies, nfe = write()
        judged = zip(holes, bodies, strict=True)
        verdicts[way] = [right(one, text, task.isolation) for one, text in judged]
        compared = paired(verdicts["left"], verdicts[way])
        same = sum(t == h.exercise.solution for h, t in zip(holes, bodies, strict=True))
        row = (way, len(holes), sum(verdicts[way]), same, f"{compared.difference:+.1f}")
        row += (f"{compared.p:.2g}", nfe)
        print(" | ".join(map(str, row)), flush=True)
        found.append(dict(zip(HEAD, row, strict=True)))
    if arguments.json:
        options = {name: str(value) for name, value in vars(arguments).items()}
        arguments.json.write_text(json.dumps({"options": options, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
