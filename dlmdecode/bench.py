"""Samplers against each other on held-out word problems: accuracy, forwards, and wall-clock time.

    dlmdecode bench samplers --limit 500 --output benchmarks/results/samplers.md

Batches are decoded by one sampler after the other, so that whatever else the machine does falls on
all of them alike. Times are ratios to `vanilla` in the same run, without loading or warm-up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from tqdm import tqdm

from dlmdecode.evals.arithmetic import Problem, final_answer, problem
from dlmdecode.evals.runner import Contender
from dlmdecode.generation import generate
from dlmdecode.models.loading import load
from dlmdecode.registry import list_samplers, sampler

BASELINE = "vanilla"
COMPOSITIONS = (
    "credit+prophet",
    "localleap+prophet",
    "adablock+credit",
    "adablock+credit+localleap",
    "adablock+credit+localleap+prophet",
    "freedave+prophet",
)
BARS = tuple(f"threshold,threshold={bar}" for bar in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8))


@dataclass
class Score:
    """Totals of one sampler."""

    name: str
    right: list[bool] = field(default_factory=list)
    nfe: int = 0
    new_tokens: int = 0
    seconds: float = 0.0

    def add(self, out: Any, problems: Sequence[Problem]) -> None:
        answers = map(final_answer, out.texts)
        self.right += [a == p.answer for a, p in zip(answers, problems, strict=True)]
        self.nfe += sum(out.nfe)
        self.new_tokens += sum(out.new_tokens)
        self.seconds += out.stats["seconds"]

    def row(self, baseline: float) -> str:
        """A line of the table; `baseline` is the time that vanilla took."""
        total = len(self.right)
        low, high = binomtest(sum(self.right), total).proportion_ci(0.95, method="wilson")
        accuracy = f"{sum(self.right) / total:.1%} [{low:.1%}, {high:.1%}]"
        rate, speed = self.new_tokens / max(self.nfe, 1), baseline / self.seconds
        return f"| {self.name} | {accuracy} | {self.nfe / total:.1f} | {rate:.2f} | {speed:.2f}× |"


def buildable(names: Sequence[str], model: Any) -> list[str]:
    """Those of `names` that this model has all for (a trained filter, say)."""

    def builds(name: str) -> bool:
        contender = Contender.parse(name)
        context = {"max_new_tokens": 128, "block_length": 32, "steps": None}
        options = {"family": model.family, "context": context, **contender.options}
        try:
            sampler(contender.spec, **options).bind(model)
        except (ValueError, TypeError):
            return False
        return True

    return [name for name in names if builds(name)]


def measure(
    model: Any,
    names: Sequence[str],
    limit: int,
    batch_size: int,
    max_new_tokens: int,
    split: str = "heldout",
    save: Callable[[list[Score]], None] = lambda scores: None,
) -> list[Score]:
    """Decode the first `limit` problems of a split with every sampler; vanilla comes first.

    `names` as `generate` takes them, options behind commas: "threshold,threshold=0.5".
    `save` gets the totals so far after every batch.
    """
    contenders = [Contender.parse(name) for name in dict.fromkeys([BASELINE, *names])]
    scores = [Score(contender.label) for contender in contenders]
    problems = [problem(seed, split=split) for seed in range(limit)]

    def decode(questions: str | list[str], contender: Contender) -> Any:
        shape = {"max_new_tokens": max_new_tokens, **contender.options}
        return generate(model, questions, contender.spec, **shape)

    for contender in contenders:  # the first calls allocate and compile
        decode(problems[0].question, contender)
    batches = [problems[i : i + batch_size] for i in range(0, limit, batch_size)]
    with tqdm(total=len(batches) * len(scores), unit="batch", disable=None) as progress:
        for batch in batches:
            questions = [one.question for one in batch]
            for score, contender in zip(scores, contenders, strict=True):
                progress.set_postfix_str(score.name)
                score.add(decode(questions, contender), batch)
                progress.update()
            save(scores)
    return scores


def table(scores: Sequence[Score]) -> str:
    baseline = next(score.seconds for score in scores if score.name == BASELINE)
    head = [
        f"{len(scores[0].right)} held-out problems",
        "",
        "| sampler | accuracy [95 % interval] | NFE a problem | tokens per forward | speed |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(score.row(baseline) for score in scores)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="embedded name, folder or hub id (tiny)")
    parser.add_argument(
        "--sampler",
        action="append",
        metavar="NAME[+NAME][,OPTION=VALUE]",
        help="repeatable; without it all, some compositions and bars of threshold",
    )
    parser.add_argument("--limit", type=int, default=500, help="problems (500)")
    parser.add_argument("--batch-size", type=int, default=16, help="problems at a time (16)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="canvas length (128)")
    parser.add_argument("--output", type=Path, help="also write the table to this file")


def run(arguments: argparse.Namespace) -> None:
    for name in ("limit", "batch_size", "max_new_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(arguments, name)}: give 1 or more"
            )
    model = load(arguments.model)
    names = arguments.sampler or buildable([*list_samplers(), *BARS, *COMPOSITIONS], model)
    shape = (arguments.limit, arguments.batch_size, arguments.max_new_tokens)
    output = arguments.output

    def save(scores: list[Score]) -> None:
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(table(scores) + "\n", encoding="utf-8")

    print(table(measure(model, names, *shape, save=save)))
