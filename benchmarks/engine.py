"""Rows that come and go against batches that wait for their longest row, on problems of any length.

    OMP_NUM_THREADS=1 python benchmarks/engine.py --problems 300 --batch-size 16

Texts are cut to be of very different lengths: each problem stands behind none to three others, and
its text ends where the model ends it. Times are CPU seconds of this process, both ways in one run.
A second engine is given each prompt a step after the one before. Last, `--requests` prompts go
through a third one, and the memory of the process is read on the way.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.result import Cost

PAGE = 4096  # bytes


def questions(num: int) -> list[str]:
    """Prompts of one to four problems of the held-out split."""
    chance = random.Random(0)
    every = [problem(seed, "heldout").question for seed in range(num)]
    return [" ".join([*chance.choices(every, k=chance.randrange(4)), own]) for own in every]


def in_batches(model: Any, prompts: list[str], batch_size: int, **given: Any) -> dict[str, Any]:
    """As `generate` was called before: the longest first, one batch after the other."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    tokens, cost, began = 0, Cost(), time.process_time()
    for first in range(0, len(order), batch_size):
        some = order[first : first + batch_size]
        out = dlmdecode.generate(model, [prompts[i] for i in some], **given)
        tokens += sum(out.new_tokens)
        stats = out.stats
        cost.add(Cost(int(stats["nfe"]), stats["forward_rows"], stats["forward_positions"]))
    return {"tokens": tokens, "cost": cost, "seconds": time.process_time() - began}


def in_places(model: Any, prompts: list[str], batch_size: int, **given: Any) -> dict[str, Any]:
    """Through an engine; also how many rows were in flight in each step."""
    engine = dlmdecode.Engine(model, batch_size=batch_size, **given)
    texts, tokens, in_flight, began = {}, 0, [], time.process_time()
    _all = engine.run(prompts)  # its end would cancel them
    while engine.waiting or engine.flight.rows:
        ended = engine.step()
        in_flight.append(len(engine.flight.rows) + len(ended))
        for request in ended:
            out = request.result()
            texts[request.index] = out.texts[0]
            tokens += out.new_tokens[0]
    seconds = time.process_time() - began
    shares = [rows / batch_size for rows in in_flight]
    found = {"texts": texts, "tokens": tokens, "cost": engine.cost, "seconds": seconds}
    return found | {"in flight": sum(shares) / len(shares)}


def late(model: Any, prompts: list[str], batch_size: int, **given: Any) -> list[str]:
    """Texts of prompts of which each is submitted a step after the one before, in their order."""
    with dlmdecode.Engine(model, batch_size=batch_size, **given) as engine:
        requests = []
        for prompt in prompts:
            requests.append(engine.submit(prompt))
            engine.step()
        while engine.waiting or engine.flight.rows:
            engine.step()
        return [request.result().texts[0] for request in requests]


def memory(model: Any, prompts: list[str], requests: int, batch_size: int) -> Iterator[str]:
    """What the process holds after each fifth of the requests, whose texts are short."""
    with dlmdecode.Engine(model, batch_size=batch_size, max_new_tokens=16) as engine:
        for number in range(requests):
            engine.submit(prompts[number % len(prompts)])
            if (number + 1) % (requests // 5) == 0:
                while engine.waiting or engine.flight.rows:
                    engine.step()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                yield f"{number + 1}: {pages * PAGE / 2**20:.0f} MiB"


def show(what: str, found: dict[str, Any]) -> None:
    cost = found["cost"]
    speed = found["tokens"] / found["seconds"]
    print(f"{what}: {speed:.0f} tokens per CPU second, "
          f"{cost.calls} forwards, {cost.rows:.0f} rows, {cost.positions:.0f} positions",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", default="threshold")
    parser.add_argument("--cache", default="none")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--single", type=int, help="single runs to compare with (all)")
    parser.add_argument("--requests", type=int, default=2000, help="of the look at memory; 0: none")
    args = parser.parse_args()
    model, prompts = dlmdecode.load(args.model), questions(args.problems)
    given = {
        "sampler": args.sampler, "cache": args.cache, "max_new_tokens": args.max_new_tokens
    }  # fmt: skip
    print(f"{args.sampler}, cache={args.cache}, {len(prompts)} prompts, batch {args.batch_size}; "
          f"torch {torch.__version__}, {torch.get_num_threads()} thread", flush=True)  # fmt: skip
    in_places(model, prompts[: args.batch_size], args.batch_size, **given)  # warm-up
    batches = in_batches(model, prompts, args.batch_size, **given)
    show("batches", batches)
    places = in_places(model, prompts, args.batch_size, **given)
    show("places", places)
    speed = [found["tokens"] / found["seconds"] for found in (batches, places)]
    print(
        f"ratio {speed[1] / speed[0]:.2f}, rows in flight {places['in flight']:.3f} of the places"
    )
    num = len(prompts) if args.single is None else args.single
    alone = [dlmdecode.generate(model, prompts[i], **given).texts[0] for i in range(num)]
    same = sum(places["texts"][i] == text for i, text in enumerate(alone))
    print(f"texts equal to single runs: {same} of {num}", flush=True)
    texts = late(model, prompts[:num], args.batch_size, **given) if num else []
    same = sum(text == own for text, own in zip(texts, alone, strict=True))
    print(f"submitted late, equal to single runs: {same} of {num}", flush=True)
    if args.requests:
        held = memory(model, prompts, args.requests, args.batch_size)
        print("memory after requests", *held, sep="; ", flush=True)


if __name__ == "__main__":
    main()
