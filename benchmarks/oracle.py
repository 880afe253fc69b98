"""What the order of commits can win: tokens per forward if an oracle names what may be committed.

    python benchmarks/oracle.py --limit 200 --output benchmarks/results/oracle.json

The oracle knows the text of a slow sampler, and at every step commits all proposals of the open
block that are its tokens, and the most confident one where there are none. A rule that commits more
in a step writes another text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.statistics import paired
from dlmdecode.parts.blocks import blocks_of


@dataclass(frozen=True, eq=False)
class Oracle(Selection):
    """Every proposal of the open block that is a token of the text (rows, G) known beforehand."""

    text: Tensor

    def __call__(self, canvas: Canvas) -> Tensor:
        offset = (canvas.position - canvas.start[:, None]).clamp(0, self.text.shape[1] - 1)
        known = self.text[canvas.row].gather(1, offset)
        return canvas.open & (canvas.proposal.token == known)


def text_of(out: Any, eos: int, length: int) -> Tensor:
    """The generated ids of each row, (B, length), EOS behind their end."""
    text = torch.full((len(out.nfe), length), eos)
    for row, ids, start in zip(text, out.sequences, out.prompt_lengths, strict=True):
        own = ids[start : start + length]
        row[: len(own)] = own
    return text


@dataclass
class Tally:
    """Totals of one recipe."""

    right: list[bool]
    nfe: int = 0
    new_tokens: int = 0


def measure(model: Any, task: Arithmetic, given: argparse.Namespace) -> Iterator[dict[str, Tally]]:
    """Totals of the reference and, for each block length, of the oracle, after every batch."""
    found: dict[str, Tally] = {}
    for first in range(0, len(task), given.batch_size):
        problems = range(first, min(first + given.batch_size, len(task)))

        def run(label: str, recipe: Any, problems: range = problems) -> Any:
            prompts = [task.prompt(i) for i in problems]
            out = dlmdecode.generate(model, prompts, recipe, max_new_tokens=given.max_new_tokens)
            tally = found.setdefault(label, Tally([]))
            tally.right += [
                task.grade(i, text) for i, text in zip(problems, out.texts, strict=True)
            ]
            tally.nfe += sum(out.nfe)
            tally.new_tokens += sum(out.new_tokens)
            return out

        slow = run(given.reference, given.reference)
        text = text_of(slow, model.eos_ids[0], given.max_new_tokens)
        for block in given.block_length:
            recipe = Sampler(select=Oracle(text), blocks=blocks_of(block))
            run(f"oracle, block_length={block}", recipe)
        yield found


def lines_of(found: dict[str, Tally]) -> list[dict[str, Any]]:
    """A line of the result for each recipe, the reference first."""
    base = next(iter(found.values())).right
    return [
        {
            "sampler": label,
            "problems": len(tally.right),
            "accuracy": 100 * sum(tally.right) / len(tally.right),
            "difference": paired(base, tally.right).difference,
            "tokens_per_forward": tally.new_tokens / tally.nfe,
        }
        for label, tally in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="tiny")
    add("--limit", type=int, default=200)
    add("--batch-size", type=int, default=16)
    add("--max-new-tokens", type=int, default=128)
    add("--block-length", type=int, nargs="+", default=[32, 128], metavar="N")
    add("--reference", default="vanilla", help="the sampler whose text the oracle knows")
    add("--output", type=Path, help="written after every batch")
    given = parser.parse_args()
    for found in measure(dlmdecode.load(given.model), Arithmetic(given.limit), given):
        lines = lines_of(found)
        print(json.dumps(lines), flush=True)
        if given.output:
            given.output.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
