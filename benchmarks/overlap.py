"""What drafting and verifying at the same time could gain at most (PEARL, arXiv 2408.11850).

    OMP_NUM_THREADS=1 python benchmarks/overlap.py
    OMP_NUM_THREADS=1 python benchmarks/overlap.py --drafter failfast,model=tiny --count 4

While a draft is verified, the next one is drafted behind it (post-verify). That is of use where all
of the draft stands; else the next one is drafted again. Of each step the CPU time of draft and
verification is taken, on one thread each. "overlapped" is their sum where the shorter of two that
could run together costs nothing: the verifier's own token behind the draft counts as guessed, two
threads as undisturbed, and a draft that was in vain as free. To verify a draft's first token before
the others are drafted (pre-verify) gives nothing where one forward drafts all.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from measure import timed

from dlmdecode.evals.arithmetic import problem
from dlmdecode.speculation import load_verifier, row, speculate
from dlmdecode.speculation.verifier.cached_model import CachedModel

DRAFTERS = ["tiny", "failfast,model=tiny", "threshold,model=tiny", "suffix"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--verifier", default="tiny-ar")
    add("--drafter", nargs="+", default=DRAFTERS)
    add("--count", type=int, default=8, help="problems, after one to warm up")
    add("--max-new-tokens", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    verifier = load_verifier(arguments.verifier, "cpu", "float32")
    drafts: list[float] = []
    verified: list[float] = []
    timed(row, "drafted", drafts.append)
    timed(CachedModel, "__call__", verified.append)
    print(f"{'drafter':24} steps  drafted again  draft/verification  in turn (s)  overlapped  gain")
    for drafter in arguments.drafter:
        total: dict[str, float] = defaultdict(float)
        for seed in range(arguments.count + 1):
            drafts.clear()
            verified.clear()
            text, length = problem(seed).question, arguments.max_new_tokens
            trace = speculate(drafter, verifier, text, max_new_tokens=length).trace
            if seed == 0:
                continue
            total["draft"] += sum(drafts)
            total["verified"] += sum(verified)
            for at, step in enumerate(trace[:-1]):
                total["next"] += 1
                whole = step.accepted == len(step.draft) > 0
                total["again"] += not whole
                total["saved"] += min(drafts[at + 1], verified[at]) if whole else 0
            total["steps"] += len(trace)
        both = total["draft"] + total["verified"]
        least = both - total["saved"]
        again = 100 * total["again"] / max(total["next"], 1)
        print(
            f"{drafter:24} {total['steps']:5.0f} {again:12.0f} % "
            f"{total['draft'] / total['verified']:19.2f} {both:12.2f} {least:11.2f} "
            f"{both / least:5.2f}"
        )


if __name__ == "__main__":
    main()
