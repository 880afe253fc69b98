"""A block-causal model under its exact cache against a bidirectional one: tokens per CPU second.

    OMP_NUM_THREADS=1 python benchmarks/block_cache.py --problems 48

The same held-out problems, batch after batch, each batch by every model, cache and sampler in turn,
so that what else the machine does falls on all alike. Speed is tokens per second of CPU time over
that of the first row with the same sampler. `--output FILE` also writes the table.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import dlmdecode
from dlmdecode.evals.arithmetic import final_answer, problem
from dlmdecode.evals.statistics import interval

PAIRS = ("tiny none", "tiny dual", "tiny prefix", "tiny-block none", "tiny-block block")
HEAD = """\
| sampler | model | cache | right [95 % interval] | NFE | positions | tokens per forward | speed |
|---|---|---|---|---|---|---|---|"""


@dataclass
class Total:
    """What one model, cache and sampler did so far."""

    right: int = 0
    nfe: int = 0
    positions: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def line(self, sampler: str, pair: str, problems: int, first: Total) -> str:
        low, high = interval(self.right, problems)
        speed = self.tokens / self.seconds / (first.tokens / first.seconds)
        return (
            f"| {sampler} | `{pair.split()[0]}` | {pair.split()[1]} "
            f"| {self.right / problems:.1%} [{low:.1%}, {high:.1%}] | {self.nfe / problems:.1f} "
            f"| {self.positions / problems:,.0f} | {self.tokens / self.nfe:.2f} | {speed:.2f}× |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="'MODEL CACHE'")
    parser.add_argument("--samplers", nargs="+", default=["vanilla", "threshold"])
    parser.add_argument("--problems", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {name: dlmdecode.load(name, "cpu") for name in {p.split()[0] for p in options.pairs}}
    problems = [problem(seed) for seed in range(options.problems)]
    totals = {(s, pair): Total() for s in options.samplers for pair in options.pairs}
    for first in tqdm(range(0, len(problems), options.batch), unit="batch"):
        batch = problems[first : first + options.batch]
        for (sampler, pair), total in totals.items():
            name, cache = pair.split()
            began = time.process_time()
            out = dlmdecode.generate(
                models[name],
                [p.question for p in batch],
                sampler,
                max_new_tokens=options.max_new_tokens,
                cache=cache,
            )
            total.seconds += time.process_time() - began
            answers = zip(out.texts, batch, strict=True)
            total.right += sum(final_answer(text) == p.answer for text, p in answers)
            total.nfe += sum(out.nfe)
            total.tokens += sum(out.new_tokens)
            total.positions += int(out.stats["forward_positions"])
    lines = [HEAD] + [
        total.line(sampler, pair, len(problems), totals[sampler, options.pairs[0]])
        for (sampler, pair), total in totals.items()
    ]
    text = f"{len(problems)} held-out problems, one thread of a CPU\n\n" + "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
