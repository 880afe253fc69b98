"""Rows that come and go against batches that wait for their longest row, on problems of any length.

    OMP_NUM_THREADS=1 python benchmarks/engine.py --problems 300 --batch-size 16

Texts are cut to be of very different lengths: each problem stands behind none to three others, and
its text ends where the model ends it. Times are CPU seconds of this process, both ways in one run.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import dlmdecode
from dlmdecode.evals.arithmetic import problem


def questions(num: int) -> list[str]:
    """Prompts of one to four problems of the held-out split."""
    chance = random.Random(0)
    every = [problem(seed, "heldout").question for seed in range(num)]
    return [" ".join([*chance.choices(every, k=chance.randrange(4)), own]) for own in every]


def in_batches(model: Any, prompts: list[str], batch_size: int, **given: Any) -> dict[str, Any]:
    """As `generate` was called before: the longest first, one batch after the other."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts, tokens, began = {}, 0, time.process_time()
    for first in range(0, len(order), batch_size):
        some = order[first : first + batch_size]
        out = dlmdecode.generate(model, [prompts[i] for i in some], **given)
        texts.update(zip(some, out.texts, strict=True))
        tokens += sum(out.new_tokens)
    return {"texts": texts, "tokens": tokens, "seconds": time.process_time() - began}


def in_places(model: Any, prompts: list[str], batch_size: int, **given: Any) -> dict[str, Any]:
    """Through an engine; also how many rows were in flight in each step."""
    engine = dlmdecode.Engine(model, batch_size=batch_size, **given)
    texts, tokens, in_flight, began = {}, 0, [], time.process_time()
    engine.run(prompts)
    while engine.waiting or engine.flight.rows:
        ended = engine.step()
        in_flight.append(len(engine.flight.rows) + len(ended))
        for request in ended:
            out = request.result()
            texts[request.index] = out.texts[0]
            tokens += out.new_tokens[0]
    seconds = time.process_time() - began
    return {"texts": texts, "tokens": tokens, "seconds": seconds, "in_flight": in_flight}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", default="threshold")
    parser.add_argument("--cache", default="none")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--single", type=int, help="single runs to compare with (all)")
    args = parser.parse_args()
    model, prompts = dlmdecode.load(args.model), questions(args.problems)
    given = {
        "sampler": args.sampler, "cache": args.cache, "max_new_tokens": args.max_new_tokens
    }  # fmt: skip
    in_places(model, prompts[: args.batch_size], args.batch_size, **given)  # warm-up
    batches = in_batches(model, prompts, args.batch_size, **given)
    places = in_places(model, prompts, args.batch_size, **given)
    num = len(prompts) if args.single is None else args.single
    alone = {i: dlmdecode.generate(model, prompts[i], **given).texts[0] for i in range(num)}
    rows = places["in_flight"]
    print(f"{args.sampler}, cache={args.cache}, {len(prompts)} prompts, batch {args.batch_size}")
    print(f"rows in flight: {sum(rows) / len(rows) / args.batch_size:.3f} of the places")
    speed = [found["tokens"] / found["seconds"] for found in (batches, places)]
    print(f"tokens per CPU second: batches {speed[0]:.0f}, places {speed[1]:.0f}, "
          f"ratio {speed[1] / speed[0]:.2f}")  # fmt: skip
    same = sum(places["texts"][i] == text for i, text in alone.items())
    print(f"texts equal to single runs: {same} of {num}")


if __name__ == "__main__":
    main()
