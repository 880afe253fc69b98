"""What a trace adds to a step: CPU time of the writing beside that of the decoding.

OMP_NUM_THREADS=1 python benchmarks/trace.py
OMP_NUM_THREADS=1 python benchmarks/trace.py --batch 16 --max-new-tokens 256 --sampler prophet

A line for each of `--repeats` runs, of other problems each, and one for all of them together.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.trace.generation import GenerationFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", default="vanilla")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = dlmdecode.load(arguments.model, device="cpu")
    problems = itertools.count()
    runs: list[tuple[int, float, float, int]] = []
    spent, write = 0.0, GenerationFile.flush

    def timed(file: GenerationFile) -> None:
        nonlocal spent
        began = time.process_time()
        write(file)
        spent += time.process_time() - began

    GenerationFile.flush = timed  # type: ignore[method-assign]
    for _ in range(arguments.repeats):
        prompts = [problem(next(problems)).question for _ in range(arguments.batch)]
        spent = 0.0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.jsonl"
            began = time.process_time()
            out = dlmdecode.generate(
                model,
                prompts,
                arguments.sampler,
                max_new_tokens=arguments.max_new_tokens,
                eos="ignore",
                trace=path,
            )
            whole, size = time.process_time() - began, path.stat().st_size
        runs.append((int(out.stats["nfe"]), whole - spent, spent, size))
        print(line(*runs[-1]), flush=True)
    print("together:", line(*map(sum, zip(*runs, strict=True))))


def line(steps: int, decoding: float, writing: float, size: int) -> str:
    """What a run cost, and its trace beside it."""
    return (
        f"{steps} steps: {1e3 * decoding / steps:.2f} ms each, the trace "
        f"{1e6 * writing / steps:.0f} µs more ({100 * writing / decoding:.1f} %), "
        f"{size / steps:.0f} bytes a step"
    )


if __name__ == "__main__":
    main()
