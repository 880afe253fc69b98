"""What a step costs beside its forward, for every sampler under every cache.

    OMP_NUM_THREADS=1 python benchmarks/step.py                       # the embedded model
    OMP_NUM_THREADS=1 python benchmarks/step.py --vocabulary 126464 --width 256
    python benchmarks/step.py --samplers threshold klass --caches none --repeats 5

"ratio" is the CPU time of this thread from the first forward to the end of the text, over that
spent in the model (`encode` and `head`, a cache's own work between the layers among it), in one
run: the median of `--repeats`. "of a bare forward" is a step over the model called alone on the
same canvas, which gives the logits of every position, in turns with the runs. Operations and waits
are those outside the model, a step, exact: on a GPU each is a launch or a stall. A pair that the
library refuses has no line.
The last lines are the time before the first forward. With `--output` they are kept in a page of
results, which the same command goes on with.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from measure import Inside, Table, before_first_forward, command, counted, prompts, synthetic

import dlmdecode
from dlmdecode.composition import Composition

HEAD = (
    "model",
    "sampler",
    "cache",
    "steps",
    "ms a step",
    "of which model",
    "ratio",
    "of a bare forward",
    "operations",
    "waits",
)
SURE = {  # options under which a step writes one token: as many steps as tokens
    "threshold": 1.0, "low_threshold": 1.0, "early": 99.0, "mid": 99.0, "late": 99.0, "high": 99.0
}  # fmt: skip
BEFORE = ((1, 32), (32, 1024))  # prompts and their lengths


def timed(model: Any, given: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of this thread from the first forward on, those in the model, and steps."""
    with Inside(model) as inside:
        out = dlmdecode.generate(model, **given)
        ended = time.thread_time()
    assert inside.began is not None
    return ended - inside.began, inside.seconds, int(max(out.nfe))


@torch.inference_mode()
def bare(model: Any, given: dict[str, Any], count: int = 8) -> float:
    """Seconds of this thread for a forward over the canvas of a call, with all logits."""
    masks = torch.full((given["max_new_tokens"],), model.mask_id)
    canvas = torch.stack([torch.cat([prompt, masks]) for prompt in given["prompt"]])
    began = time.thread_time()
    for _ in range(count):
        model.forward(canvas)
    return (time.thread_time() - began) / count


def sure(sampler: str) -> dict[str, float]:
    """Those of `SURE` that a sampler has."""
    composition, _ = Composition.read(sampler, {})
    return {name: SURE[name] for name in composition.options() if name in SURE}


def measured(model: Any, given: dict[str, Any], repeats: int) -> dict[str, Any]:
    """A line of the table; raises `ValueError` where the library refuses the pair."""
    dlmdecode.generate(model, **given)  # warm-up
    runs = [(*timed(model, given), bare(model, given)) for _ in range(repeats)]
    whole, inside, steps, _ = sorted(runs, key=lambda run: run[0] / run[1])[repeats // 2]
    taken = dlmdecode.stream(model, **given)
    next(taken)  # opens the canvas and makes the first masks and caches
    with counted(model) as count:
        num = sum(1 for _ in zip(range(12), taken, strict=False)) or 1
    return {
        "steps": steps,
        "ms a step": round(1e3 * whole / steps, 3),
        "of which model": round(1e3 * inside / steps, 3),
        "ratio": round(statistics.median(run[0] / run[1] for run in runs), 3),
        "of a bare forward": round(statistics.median(r[0] / r[2] / r[3] for r in runs), 3),
        "operations": round(count.operations / num, 1),
        "waits": round(count.waits / num, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--vocabulary", type=int, help="random weights with so many tokens instead")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--samplers", nargs="+", default=dlmdecode.list_samplers())
    parser.add_argument("--caches", nargs="+", default=["none", "prefix", "dual"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a page of results, gone on with")
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    size = options["vocabulary"]
    model = synthetic(size, options["width"]) if size else dlmdecode.load(options["model"])
    name = f"V {size}, width {options['width']}" if size else options["model"]
    some = prompts(options["batch"], 32, model.vocab_size)
    given = {"prompt": some, "max_new_tokens": options["max_new_tokens"], "eos": "ignore"}
    table = Table(options["output"], f"# What a step costs beside its forward\n\n{command()}", HEAD)
    for sampler, cache in itertools.product(options["samplers"], options["caches"]):
        if table.done(name, sampler, cache):
            continue
        pair = {"sampler": sampler, "cache": cache} | sure(sampler)
        try:
            line = measured(model, given | pair, options["repeats"])
        except ValueError:
            continue
        table.add(name, sampler, cache, *line.values())
    model.max_length = None
    for num, length in BEFORE:
        text = f"before the first forward, {num} of {length} tokens"
        if not table.done(name, text):
            given["prompt"] = prompts(num, length, model.vocab_size)
            taken = before_first_forward(model, lambda: dlmdecode.generate(model, **given))
            table.add(name, text, "", "", round(1e3 * taken, 3), *[""] * 5)


if __name__ == "__main__":
    main()
