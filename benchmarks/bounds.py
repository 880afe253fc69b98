"""What holds a rule back: of the masks that it leaves, how many proposals are right already.

    python benchmarks/bounds.py --limit 64 --output benchmarks/results/bounds.json

Right is what the text of a slow sampler has there. A mask left with a right proposal waits for the
rule, one with a wrong proposal for the model: for text that the token depends on. The oracle, which
commits whatever is right, waits for the model only.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from oracle import Oracle, text_of
from torch import Tensor

import dlmdecode
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.decoding.trace import Step
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.parts.blocks import blocks_of

RECIPES = ["oracle", "oracle,block_length=none", "threshold,threshold=0.98"]


def recipe_of(spec: str, text: Tensor) -> Any:
    """A sampler's text, or the oracle with a block length."""
    if not spec.startswith("oracle"):
        return spec
    return Sampler(Oracle(text), blocks_of(None if spec.endswith("none") else 32))


def left(model: Any, step: Step, text: Tensor) -> Counter[str]:
    """Masks of open blocks that a step leaves before their texts' ends, by what they wait for."""
    found: Counter[str] = Counter(forwards=len(step.rows))
    position = torch.arange(step.sequences.shape[1])
    for i, row in enumerate(step.rows.tolist()):
        start, own = int(step.start[i]), text[row]
        known = torch.full_like(position, model.eos_ids[0])
        known[start : start + len(own)] = own[: len(known) - start]
        ends = (own == model.eos_ids[0]).nonzero()[:, 0].tolist()
        end = start + (ends[0] + 1 if ends else len(own))
        here = step.masked[i] & (position >= step.lo[i]) & (position < step.hi[i].clamp(max=end))
        right = step.proposal.token[i] == known
        found["caution"] += bool(here.any() and (right | ~here).all())
        for kind, where in (("right", here & right), ("wrong", here & ~right)):
            for token in known[where].tolist():
                digit = any(letter.isdigit() for letter in model.tokenizer.decode([token]))
                found[f"{kind} {'digits' if digit else 'others'}"] += 1
    return found


def measure(model: Any, task: Arithmetic, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for each recipe: means over the problems."""
    counts: dict[str, Counter[str]] = {spec: Counter() for spec in given.sampler}
    for first in range(0, len(task), given.batch_size):
        prompts = [task.prompt(i) for i in range(first, min(first + given.batch_size, len(task)))]
        slow = dlmdecode.generate(model, prompts, given.reference, max_new_tokens=128)
        text = text_of(slow, model.eos_ids[0], 128)
        for spec in given.sampler:
            recipe = recipe_of(spec, text)
            for step in dlmdecode.stream(model, prompts, recipe, max_new_tokens=128):
                counts[spec] += left(model, step, text)
    return [
        {"sampler": spec, "problems": len(task)}
        | {name: round(number / len(task), 2) for name, number in sorted(count.items())}
        for spec, count in counts.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="tiny")
    add("--limit", type=int, default=64)
    add("--batch-size", type=int, default=16)
    add("--reference", default="vanilla", help="the sampler whose text is right")
    add("--sampler", nargs="+", default=RECIPES, metavar="NAME", help="'oracle' is one, too")
    add("--output", type=Path)
    given = parser.parse_args()
    lines = measure(dlmdecode.load(given.model), Arithmetic(given.limit), given)
    print(json.dumps(lines, indent=1))
    if given.output:
        given.output.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
