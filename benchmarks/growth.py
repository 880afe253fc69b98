"""How a step grows with the canvas, the batch and the vocabulary: time, memory and positions.

    OMP_NUM_THREADS=1 python benchmarks/growth.py                     # three values of each
    OMP_NUM_THREADS=1 python benchmarks/growth.py --long              # all of them
    python benchmarks/growth.py --sampler dream --set vocabulary=126464 canvas=256 batch=4 --axes

Random weights, the first `--steps` steps of texts that fill the canvas behind prompts of 8.
One of the three grows, the others stay at `--set`; "x" is a value over that of the axis' first
line. Times are CPU milliseconds of this thread a step, "outside" the part of them that is not in
the model. "peak MB" is the most memory that the process held beyond what it held with the model
loaded; "positions" those that the model computed a step. Each line has its own process (Linux).
With `--output` lines are kept in a page of results, which the same command goes on with.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
from measure import (
    Inside,
    Table,
    command,
    own_bytes,
    peak_bytes,
    prompts,
    reset_peak,
    synthetic,
)

import dlmdecode

AXES = {
    "canvas": (64, 128, 256, 512, 1024, 2048),
    "batch": (1, 2, 4, 8, 16, 32),
    "vocabulary": (1_000, 8_000, 32_000, 64_000, 126_464, 152_000),
}
QUICK = {"canvas": (64, 256, 1024), "batch": (1, 4, 16), "vocabulary": (1_000, 8_000, 32_000)}
SHOWN = ("ms", "peak MB", "positions")
HEAD = ("sampler", "grows", "to", *(text for name in SHOWN for text in (name, "x")), "outside")
PROMPT = 8


def point(size: dict[str, int], options: dict[str, Any]) -> dict[str, float]:
    """What the steps of one size cost, in this process."""
    torch.set_num_threads(1)
    model = synthetic(size["vocabulary"], options["width"], options["layers"])
    text = size["canvas"] - PROMPT
    taken = dlmdecode.stream(
        model,
        prompts(size["batch"], PROMPT, size["vocabulary"]),
        options["sampler"],
        max_new_tokens=text,
        block_length=min(options["block_length"], text) if options["block_length"] else None,
        cache=options["cache"],
        eos="ignore",
    )
    held, positions = own_bytes(), []
    encode = model.encode
    model.encode = lambda tokens, *rest: positions.append(tokens.numel()) or encode(tokens, *rest)
    reset_peak()
    with Inside(model) as inside:
        began = time.thread_time()
        steps = sum(1 for _ in itertools.islice(taken, options["steps"]))
        seconds = time.thread_time() - began
    return {
        "ms": 1e3 * seconds / steps,
        "outside": 1e3 * (seconds - inside.seconds) / steps,
        "peak MB": (peak_bytes() - held) / 1e6,
        "positions": sum(positions) / steps,
    }


def alone(size: dict[str, int], options: dict[str, Any]) -> dict[str, float]:
    """`point` in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(point, (size, options))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sampler", default="threshold")
    parser.add_argument("--cache", default="none")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--block-length", type=int, default=32, help="0: the whole text")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=list(AXES))
    parser.add_argument("--set", nargs="+", default=[], metavar="AXIS=VALUE", help="128, 2, 8000")
    parser.add_argument("--long", action="store_true", help="all values of each axis")
    parser.add_argument("--output", type=Path, help="a page of results, gone on with")
    options = vars(parser.parse_args())
    given = {name: int(value) for name, value in (text.split("=") for text in options["set"])}
    fixed = {"canvas": 128, "batch": 2, "vocabulary": 8_000} | given
    others = ", ".join(f"{name} {value}" for name, value in fixed.items())
    title = f"# How a step grows\n\n{command()}\n\nWhat does not grow: {others}."
    table, values = Table(options["output"], title, HEAD), AXES if options["long"] else QUICK
    for axis in options["axes"] or ["canvas"]:
        first: list[float] = []
        for value in values[axis] if options["axes"] else [fixed["canvas"]]:
            key = (options["sampler"], axis, value)
            if not table.done(*key):
                found = alone(fixed | {axis: value}, options)
                costs = [found[name] for name in SHOWN]
                first = first or costs
                ratios = [cost / max(one, 1e-9) for cost, one in zip(costs, first, strict=True)]
                pairs = zip(costs, ratios, strict=True)
                cells = [cell for cost, ratio in pairs for cell in (f"{cost:.1f}", f"{ratio:.2f}")]
                table.add(*key, *cells, f"{found['outside']:.2f}")
            elif not first:
                line = next(one for one in table.lines if one[:3] == [str(cell) for cell in key])
                first = [float(cell) for cell in line[3:-1:2]]


if __name__ == "__main__":
    main()
