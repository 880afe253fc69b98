"""The built-in code task: generated functions, judged like HumanEval by running their tests."""

from __future__ import annotations

import copy
from typing import Any

from dlmdecode.evals import functions, sandbox
from dlmdecode.evals.arithmetic_task import Split
from dlmdecode.evals.humaneval import STOPS, Allowed, Seconds, Weak
from dlmdecode.evals.registry import register_task
from dlmdecode.evals.task import Prompt, Task, cut, digest


@register_task("functions")
class Functions(Task):
    """Exercises 0 … num_problems − 1 of a split of `functions.exercise`.

    Raises `ValueError` where running programs was not allowed or is not safe here
    (`sandbox.choose_isolation`), and for an argument out of range.
    """

    def __init__(
        self,
        num_problems: int = 200,
        split: Split = "heldout",
        chat: bool = False,
        timeout: Seconds = 10.0,
        allow_code_execution: Allowed = False,
        weak_isolation: Weak = False,
    ):
        if num_problems < 1:
            raise ValueError(f"num_problems={num_problems}: give at least 1")
        sandbox.check_timeout(timeout)
        self.isolation = sandbox.choose_isolation(self.name, allow_code_execution, weak_isolation)
        self.split_name, self.chat, self.timeout = split, chat, timeout
        self.exercises = [functions.exercise(seed, split) for seed in range(num_problems)]

    def __len__(self) -> int:
        return len(self.exercises)

    def id(self, i: int) -> str:
        return f"{self.name}/{self.split_name}/{i}"

    def prompt(self, i: int) -> Prompt:
        question = self.exercises[i].question
        return [{"role": "user", "content": question}] if self.chat else question

    def score(self, i: int, text: str) -> dict[str, Any]:
        one = self.exercises[i]
        problem = {"prompt": one.question, "test": one.check, "entry_point": one.name}
        result = sandbox.check(problem, cut(text, STOPS), self.timeout, self.isolation)
        return {"correct": result.passed, "reason": result.reason, "isolation": result.isolation}

    def first(self, number: int) -> Task:
        """A task of so many, as if it had been made with that number."""
        shorter = copy.copy(self)
        shorter.exercises = self.exercises[:number]
        return shorter

    def split(self, seed: int) -> tuple[Task, Task]:
        """The generator's own splits, which share no template."""
        del seed
        parts = ("calibration", "heldout")
        calibration, heldout = (
            Functions(len(self), part, self.chat, self.timeout, True, self.isolation == "weak")
            for part in parts
        )
        return calibration, heldout

    def describe(self) -> dict[str, Any]:
        questions = [(one.question, one.check) for one in self.exercises]
        return {
            "task": self.name,
            "split": self.split_name,
            "problems": len(self),
            "data": f"generated; sha256 {digest(questions)}",
            "template": "signature and docstring",
            "shots": 0,
            "chat": self.chat,
            "filter": f"cut at {' '.join(map(repr, STOPS))}",
            "scorer": f"its tests pass in the sandbox within {self.timeout:g} s",
            "isolation": self.isolation,
        }
