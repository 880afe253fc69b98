"""Prophet's claim (arXiv 2508.19982) on the embedded models: is the answer there half-way?

OMP_NUM_THREADS=1 python benchmarks/convergence.py --count 40 --batch 20

It writes a table and a picture of each model, which docs/results.md shows. One token a step over
the canvas, in blocks of 32 and as one block. The draft after a step is what is written, and the
best token everywhere else. `eos=ignore` counts the steps of the whole canvas, as published runs do;
`eos=stop` those until the text has ended.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import IO

import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.trace import Run, read
from dlmdecode.trace.drafts import matching, settled, texts
from dlmdecode.trace.plot import save

NEVER = {"early": 1e9, "mid": 1e9, "late": 1e9}  # prophet that never stops: it sees every proposal
SHARES = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny", "tiny-dream"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--max-new-tokens", type=int, default=128, help="the whole canvas")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/convergence"))
    parser.add_argument("--pictures", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problems = [problem(seed) for seed in range(arguments.count)]
    for folder in (arguments.output, arguments.pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.model:
        with open(arguments.output / f"{name}.md", "w", encoding="utf-8") as table:
            curves = measured(name, problems, arguments, table)
        save(arguments.pictures / f"convergence-{name}.png", draw, curves)


def measured(
    name: str, problems: list, arguments: argparse.Namespace, table: IO[str]
) -> list[tuple[str, list]]:
    """Write the table of a model; for each way to decode, what `report` gives."""
    model = dlmdecode.load(name, device="cpu")
    prompts = [[{"role": "user", "content": one.question}] for one in problems]
    heads = ["blocks", "eos", *(f"right at {share:.0%}" for share in SHARES)]
    heads += ["of those right at the end, settled by half", "median"]
    table.write("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|\n")
    curves = []
    for block_length in (32, None):
        for eos in ("ignore", "stop"):
            how = {"block_length": block_length, "eos": eos, "batch_size": arguments.batch}
            how["max_new_tokens"] = arguments.max_new_tokens
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run.jsonl"
                dlmdecode.generate(model, prompts, "prophet", trace=path, **NEVER, **how)
                (run,) = read(path)
            blocks = block_length or "one"
            line, right = report(run, problems, blocks, eos)
            print(name, line, flush=True)
            table.write(line + "\n")
            curves.append((f"{name}, blocks: {blocks}, eos={eos}", right))
    return curves


def report(run: Run, problems: list, blocks: object, eos: str) -> tuple[str, list]:
    """A line of the table; for each problem whether the draft after each step is right."""
    find, right, shares = matching(r"#### ?(-?\d+)"), [], []
    for row, one in enumerate(problems):
        answers = [find(text) for text in texts(run, row)]
        right.append([answer == str(one.answer) for answer in answers])
        if right[-1][-1]:
            shares.append(settled(answers) / len(answers))
    count = len(problems)
    at = [sum(one[max(round(s * len(one)) - 1, 0)] for one in right) for s in SHARES]
    half = sum(share <= 0.5 for share in shares)
    median = f"{sorted(shares)[len(shares) // 2]:.2f}" if shares else "–"
    cells = " | ".join(f"{100 * number / count:.0f} %" for number in at)
    return f"| {blocks} | {eos} | {cells} | {half} of {len(shares)} | {median} |", right


def draw(axes, name: str, right: list[list[bool]]) -> None:
    shares = [i / 50 for i in range(51)]
    at = [sum(one[max(round(s * len(one)) - 1, 0)] for one in right) / len(right) for s in shares]
    axes.plot(shares, at, label=name)
    axes.set(xlabel="share of the steps", ylabel="right answers in the draft", ylim=(0, 1.02))


if __name__ == "__main__":
    main()
