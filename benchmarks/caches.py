"""What each cache costs in accuracy and saves in positions, for a few samplers: a table.

    python benchmarks/caches.py --problems 500 --output benchmarks/results/caches-tiny
    python benchmarks/caches.py --model tiny-dream --samplers threshold --caches dual d2 flash

The folder `--output` is the run's, as of `dlmdecode eval`: what it holds is not done again, and
`caches.md` in it is written after every sampler and cache. Accuracy is compared with the same
sampler's without a cache on the same problems (exact McNemar test); forwards and positions are
per problem, TPF is tokens per forward.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import dlmdecode
from dlmdecode.caches import list_caches
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.plan import Contender
from dlmdecode.evals.record import model_record
from dlmdecode.evals.runner import Worker, evaluate
from dlmdecode.evals.statistics import interval, paired

HEAD = """\
| sampler | cache | accuracy [95 % interval] | difference | p | NFE | positions | TPF |
|---|---|---|---|---|---|---|---|"""
NAMED = {"auto", "none"}  # the first is one of the others


def line(sampler: str, cache: str, rows: list[dict[str, Any]], none: list[dict[str, Any]]) -> str:
    """A row of the table, of the result rows of one sampler and cache and of none."""
    right, total = [row["correct"] for row in rows], len(rows)
    low, high = interval(sum(right), total)
    test = paired([row["correct"] for row in none], right)
    nfe, tokens, positions = (
        sum(row[key] for row in rows) for key in ("nfe", "new_tokens", "forward_positions")
    )
    return (
        f"| {sampler} | {cache} | {sum(right) / total:.1%} [{low:.1%}, {high:.1%}] "
        f"| {test.difference:+.1f} | {test.p:.3f} | {nfe / total:.1f} | {positions / total:.0f} "
        f"| {tokens / max(nfe, 1):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--samplers", nargs="+", default=["threshold", "vanilla"])
    parser.add_argument("--caches", nargs="+", help="all that the model and the sampler can have")
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    model = dlmdecode.load(options.model)
    arguments = {"max_new_tokens": options.max_new_tokens}
    caches = ["none", *(options.caches or (c for c in list_caches() if c not in NAMED))]
    lines, refused = [], []
    for sampler in options.samplers:
        none: list[dict[str, Any]] = []
        for cache in caches:
            label = f"{sampler} {cache}"
            try:
                rows = evaluate(
                    Arithmetic(options.problems),
                    [Contender(label, sampler, {"cache": cache})],
                    options.output / label.replace(" ", "-").replace(",", "-"),
                    lambda: Worker(lambda: model, arguments),
                    arguments=arguments,
                    model=model_record(model.folder, options.model, None),
                    batch_size=options.batch,
                    progress=False,
                )
            except ValueError as error:
                refused.append(f"- {label}: {error}")
                rows = []
            if rows:
                none = none or rows
                lines.append(line(sampler, cache, rows, none))
                print(lines[-1], flush=True)
            title = f"{options.model}, {options.problems} problems"
            text = "\n".join([title, "", HEAD, *lines, "", *refused])
            (options.output / "caches.md").write_text(text.strip() + "\n")


if __name__ == "__main__":
    main()
