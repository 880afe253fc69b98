"""Whether two checkouts write the same texts in as many forwards: one hash for each sampler.

    python benchmarks/same_texts.py --problems 500 --output here.json      # in each checkout
    python benchmarks/same_texts.py --compare there.json here.json

Problems are those of the arithmetic task, or the lines of `--prompts` where the checkouts have
other ones, decoded `--batch` at a time by every sampler with its defaults under the caches named. A
file that is there already is gone on with, batch by batch, with the same `--batch` and perhaps more
problems; of two files the batches that both have are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import dlmdecode
from dlmdecode.evals.arithmetic import problem


def hashes(sampler: str, cache: str, done: int, options: argparse.Namespace) -> Iterator[str]:
    """A hash of the texts and forwards of each batch behind the first `done`.

    There is none where the library refuses the pair.
    """
    model = dlmdecode.load(options.model)
    if options.prompts:
        prompts = options.prompts.read_text(encoding="utf-8").splitlines()[: options.problems]
    else:
        prompts = [problem(seed, "heldout").question for seed in range(options.problems)]
    for first in range(done * options.batch, len(prompts), options.batch):
        try:
            out = dlmdecode.generate(
                model,
                prompts[first : first + options.batch],
                sampler,
                max_new_tokens=options.max_new_tokens,
                cache=cache,
            )
        except ValueError:
            return
        written = json.dumps([out.sequences.tolist(), out.nfe])
        yield hashlib.sha256(written.encode()).hexdigest()[:16]


def compare(paths: list[Path]) -> str:
    """How many batches of two files agree, and the pairs that do not."""
    one, other = (json.loads(path.read_text()) for path in paths)
    common = [name for name in one if name in other and name != "arguments"]
    pairs = {name: list(zip(one[name], other[name], strict=False)) for name in common}
    differ = {name: sum(a != b for a, b in found) for name, found in pairs.items()}
    lines = [f"{name}: {n} of {len(pairs[name])} batches differ" for name, n in differ.items() if n]
    same = sum(len(found) for found in pairs.values()) - sum(differ.values())
    return "\n".join([*lines, f"{same} batches of {len(common)} pairs are the same"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--prompts", type=Path, help="one a line, in place of the problems")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--samplers", nargs="+", default=dlmdecode.list_samplers())
    parser.add_argument("--caches", nargs="+", default=["none"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.compare:
        print(compare(options.compare))
        return
    known = options.output and options.output.exists()
    found = json.loads(options.output.read_text()) if known else {}
    asked = {name: getattr(options, name) for name in ("model", "batch", "max_new_tokens")}
    if found.setdefault("arguments", asked) != asked:
        parser.error(f"{options.output} has other arguments: {found['arguments']}")
    for sampler, cache in itertools.product(options.samplers, options.caches):
        name = f"{sampler}/{cache}"
        done = found.setdefault(name, [])
        for one in hashes(sampler, cache, len(done), options):
            done.append(one)
            if options.output:
                options.output.write_text(json.dumps(found, indent=1) + "\n")
        print(name, len(done), hashlib.sha256("".join(done).encode()).hexdigest()[:16], flush=True)


if __name__ == "__main__":
    main()
