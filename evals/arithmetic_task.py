"""The built-in task: generated word problems, no data needed."""

from __future__ import annotations

import copy
from typing import Annotated, Any

from dlmdecode.checks import OneOf
from dlmdecode.evals import arithmetic
from dlmdecode.evals.gsm8k import last_number, marked_number
from dlmdecode.evals.registry import register_task
from dlmdecode.evals.task import Prompt, Task, digest

Split = Annotated[str, OneOf(arithmetic.SPLITS), "of the generated problems"]


@register_task("arithmetic")
class Arithmetic(Task):
    """Problems 0 … num_problems − 1 of a split of `arithmetic.problem`, question as prompt."""

    def __init__(self, num_problems: int = 200, split: Split = "heldout", chat: bool = False):
        if num_problems < 1:
            raise ValueError(f"num_problems={num_problems}: give at least 1")
        self.split_name, self.chat = split, chat
        self.problems = [arithmetic.problem(seed, split) for seed in range(num_problems)]

    def __len__(self) -> int:
        return len(self.problems)

    def id(self, i: int) -> str:
        return f"{self.name}/{self.split_name}/{i}"

    def prompt(self, i: int) -> Prompt:
        question = self.problems[i].question
        return [{"role": "user", "content": question}] if self.chat else question

    def score(self, i: int, text: str) -> dict[str, Any]:
        """`strict`, which is `correct`: the number after `####`; `flexible`: the last number."""
        answer = self.problems[i].answer
        strict, flexible = marked_number(text, "####") == answer, last_number(text) == answer
        return {"correct": strict, "strict": strict, "flexible": flexible}

    def first(self, number: int) -> Task:
        """A task of so many, as if it had been made with that number."""
        shorter = copy.copy(self)
        shorter.problems = self.problems[:number]
        return shorter

    def split(self, seed: int) -> tuple[Task, Task]:
        """The generator's own splits, which share no template."""
        del seed
        calibration = Arithmetic(len(self), "calibration", self.chat)
        return calibration, Arithmetic(len(self), "heldout", self.chat)

    def describe(self) -> dict[str, Any]:
        questions = [(problem.question, problem.answer) for problem in self.problems]
        return {
            "task": self.name,
            "split": self.split_name,
            "problems": len(self),
            "data": f"generated; sha256 {digest(questions)}",
            "template": "the question alone",
            "shots": 0,
            "chat": self.chat,
            "filter": "correct and strict: the number after ####; flexible: the last number",
            "scorer": "equal numbers",
        }
