"""What `make demo` shows: a held-out word problem decoded by three samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dlmdecode.evals.arithmetic import Problem, final_answer
from dlmdecode.generation import generate
from dlmdecode.result import Generation
from dlmdecode.tables import Table

SAMPLERS = ("vanilla", "prophet", "threshold")


@dataclass(frozen=True)
class Answer:
    """What a sampler made of a problem."""

    sampler: str
    problem: Problem
    out: Generation

    @classmethod
    def of(
        cls,
        model: Any,
        problem: Problem,
        sampler: str,
        on_step: Callable[[Any], Any] | None = None,
        max_new_tokens: int = 128,
    ) -> Answer:
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "on_step": on_step}
        return cls(sampler, problem, generate(model, problem.question, sampler, **options))

    @property
    def text(self) -> str:
        return (self.out.texts or [""])[0].strip()

    @property
    def verdict(self) -> str:
        right = final_answer(self.text) == self.problem.answer
        return "right" if right else f"wrong: {self.problem.answer}"


def table(answers: Sequence[Answer]) -> Table:
    """Forwards, time and whether the answer is right."""
    rows = [
        [
            one.sampler,
            str(one.out.new_tokens[0]),
            str(one.out.nfe[0]),
            f"{one.out.stats['tokens_per_forward']:.1f}",
            f"{one.out.stats['seconds']:.2f}",
            one.verdict,
        ]
        for one in answers
    ]
    head = ["sampler", "tokens", "NFE", "tokens per forward", "seconds", "answer"]
    return Table(head, rows, numeric=True)
