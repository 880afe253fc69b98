"""Whether two checkouts write the same texts in as many forwards: one hash for each sampler.

    python benchmarks/same_texts.py --problems 500 --output here.json      # in each checkout
    python benchmarks/same_texts.py --compare there.json here.json

Problems are those of the arithmetic task, decoded `--batch` at a time by every sampler with its
defaults under the caches named. A file that is there already is gone on with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import dlmdecode
from dlmdecode.evals.arithmetic import problem


def hashed(sampler: str, cache: str, options: argparse.Namespace) -> list[str]:
    """A hash of the texts and forwards of each batch; empty where the library refuses the pair."""
    model, found = dlmdecode.load(options.model), []
    prompts = [problem(seed, "heldout").question for seed in range(options.problems)]
    for first in range(0, len(prompts), options.batch):
        try:
            out = dlmdecode.generate(
                model,
                prompts[first : first + options.batch],
                sampler,
                max_new_tokens=options.max_new_tokens,
                cache=cache,
            )
        except ValueError:
            return []
        written = json.dumps([out.sequences.tolist(), out.nfe])
        found.append(hashlib.sha256(written.encode()).hexdigest()[:16])
    return found


def compare(paths: list[Path]) -> str:
    """How many batches of two files agree, and the pairs that do not."""
    one, other = (json.loads(path.read_text()) for path in paths)
    common = [name for name in one if name in other and name != "arguments"]
    pairs = {name: list(zip(one[name], other[name], strict=True)) for name in common}
    differ = {name: sum(a != b for a, b in found) for name, found in pairs.items()}
    lines = [f"{name}: {n} of {len(pairs[name])} batches differ" for name, n in differ.items() if n]
    same = sum(len(found) for found in pairs.values()) - sum(differ.values())
    return "\n".join([*lines, f"{same} batches of {len(common)} pairs are the same"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--problems", type=int, default=40)
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
    found["arguments"] = {"problems": options.problems, "batch": options.batch}
    for sampler in options.samplers:
        for cache in options.caches:
            name = f"{sampler}/{cache}"
            found[name] = found.get(name) or hashed(sampler, cache, options)
            print(name, hashlib.sha256("".join(found[name]).encode()).hexdigest()[:16], flush=True)
            if options.output:
                options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
