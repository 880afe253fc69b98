"""What a step of speculation costs: CPU time of its parts, for drafters that need no model.

    OMP_NUM_THREADS=1 python benchmarks/speculation_step.py
    OMP_NUM_THREADS=1 python benchmarks/speculation_step.py --drafter recycling,nodes=24 --count 5

"draft" is the drafter's work: search, trees, automata, and what it learns from a verification;
"top" its reading of the best tokens from the verifier's logits, one op; "mask" and "move" are what
a tree costs beside a chain: its attention mask and positions, and its accepted keys and values. The
rest is the verifier's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import torch
from measure import timed

from dlmdecode.evals.arithmetic import problem
from dlmdecode.speculation import load_verifier, loop, row, speculate
from dlmdecode.speculation.drafters import Observation
from dlmdecode.speculation.source import Source
from dlmdecode.speculation.verifier import cached_model

DRAFTERS = ["lookup", "suffix", "recycling", "ngram", "logitspec", "hierarchy"]
DRAFTERS += ["fused,first=recycling,second=suffix"]
PARTS = {
    "draft": [(row, "drafted"), (Source, "observe")],
    "top": [(Observation, "best")],
    "mask": [(cached_model, "tree_inputs")],
    "move": [(cached_model, "move")],
    "step": [(loop, "write")],
}


def adder(part: str, seconds: Counter[str]) -> Callable[[float], None]:
    return lambda more: seconds.update({part: more})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--verifier", default="tiny-ar")
    add("--drafter", nargs="+", default=DRAFTERS)
    add("--count", type=int, default=5, help="problems, after one to warm up")
    add("--max-new-tokens", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    verifier = load_verifier(arguments.verifier, "cpu", "float32")
    seconds: Counter[str] = Counter()
    for part, functions in PARTS.items():
        for owner, name in functions:
            timed(owner, name, adder(part, seconds))
    print(f"{'drafter':36} steps  ms a step" + "".join(f"{part:>8}" for part in [*PARTS][:-1]))
    texts = [problem(seed).question for seed in range(arguments.count + 1)]
    for drafter in arguments.drafter:
        speculate(drafter, verifier, texts[0], max_new_tokens=arguments.max_new_tokens)
        seconds.clear()
        steps = sum(
            len(speculate(drafter, verifier, text, max_new_tokens=arguments.max_new_tokens).trace)
            for text in texts[1:]
        )
        seconds["draft"] -= seconds["top"]
        shares = (f"{100 * seconds[part] / seconds['step']:6.1f} %" for part in [*PARTS][:-1])
        print(f"{drafter:36} {steps:5} {1e3 * seconds['step'] / steps:10.2f}" + "".join(shares))


if __name__ == "__main__":
    main()
