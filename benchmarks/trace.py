"""What a trace adds to a step: CPU time of the writing beside that of the decoding.

OMP_NUM_THREADS=1 python benchmarks/trace.py
OMP_NUM_THREADS=1 python benchmarks/trace.py --batch 16 --max-new-tokens 256 --sampler prophet
"""

from __future__ import annotations

import argparse
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
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = dlmdecode.load(arguments.model, device="cpu")
    prompts = [problem(seed).question for seed in range(arguments.batch)]
    spent, write = 0.0, GenerationFile.flush

    def timed(file: GenerationFile) -> None:
        nonlocal spent
        began = time.process_time()
        write(file)
        spent += time.process_time() - began

    GenerationFile.flush = timed  # type: ignore[method-assign]
    for _ in range(arguments.repeats):
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
        steps = int(out.stats["nfe"])
        each, share = (whole - spent) / steps, spent / (whole - spent)
        print(
            f"{steps} steps: {1e3 * each:.2f} ms each, the trace {1e6 * spent / steps:.0f} µs more "
            f"({100 * share:.1f} %), {size / steps:.0f} bytes a step"
        )


if __name__ == "__main__":
    main()
