"""Prophet's claim (arXiv 2508.19982) on an embedded model: is the answer there half-way?

OMP_NUM_THREADS=1 python benchmarks/convergence.py --output benchmarks/results/convergence

One token a step over a canvas of 128, in blocks of 32 and as one block. The draft after a step is
what is written, and the best token everywhere else. `eos=ignore` counts the steps of the whole
canvas, as published runs do; `eos=stop` those until the text has ended.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.trace import Run, read
from dlmdecode.trace.drafts import matching, settled, texts
from dlmdecode.trace.plot import save

NEVER = {"early": 1e9, "mid": 1e9, "late": 1e9}  # prophet that never stops: it sees every proposal
SHARES = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = dlmdecode.load(arguments.model, device="cpu")
    problems = [problem(seed) for seed in range(arguments.count)]
    prompts = [[{"role": "user", "content": one.question}] for one in problems]
    print("| blocks | eos | " + " | ".join(f"right at {s:.0%}" for s in SHARES), end="")
    print(" | of those right at the end, settled by half | median |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    curves = []
    for block_length in (32, None):
        for eos in ("ignore", "stop"):
            how = {"block_length": block_length, "eos": eos, "batch_size": arguments.batch}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run.jsonl"
                dlmdecode.generate(
                    model, prompts, "prophet", trace=path, max_new_tokens=128, **NEVER, **how
                )
                (run,) = read(path)
            blocks = block_length or "one"
            curves.append((f"blocks: {blocks}, eos={eos}", report(run, problems, blocks, eos)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    save(arguments.output / f"{arguments.model}.png", draw, curves)


def report(run: Run, problems: list, blocks: object, eos: str) -> list[list[bool]]:
    """Print a line; for each problem whether the draft after each step is right."""
    find, right, shares = matching(r"#### ?(-?\d+)"), [], []
    for row, one in enumerate(problems):
        answers = [find(text) for text in texts(run, row)]
        right.append([answer == str(one.answer) for answer in answers])
        if right[-1][-1]:
            shares.append(settled(answers) / len(answers))
    count = len(problems)
    at = [sum(one[max(round(s * len(one)) - 1, 0)] for one in right) for s in SHARES]
    half = sum(share <= 0.5 for share in shares)
    median = sorted(shares)[len(shares) // 2]
    cells = " | ".join(f"{100 * number / count:.0f} %" for number in at)
    print(f"| {blocks} | {eos} | {cells} | {half} of {len(shares)} | {median:.2f} |", flush=True)
    return right


def draw(axes, name: str, right: list[list[bool]]) -> None:
    shares = [i / 50 for i in range(51)]
    at = [sum(one[max(round(s * len(one)) - 1, 0)] for one in right) / len(right) for s in shares]
    axes.plot(shares, at, label=name)
    axes.set(xlabel="share of the steps", ylabel="right answers in the draft", ylim=(0, 1.02))


if __name__ == "__main__":
    main()
