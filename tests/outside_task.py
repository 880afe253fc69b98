"""An evaluation task of another package: sums of two numbers, as CONTRIBUTING describes one."""

import random
from typing import Annotated, Any

from dlmdecode.checks import OneOf, whole
from dlmdecode.evals.gsm8k import last_number
from dlmdecode.evals.registry import register_task
from dlmdecode.evals.task import Prompt, Task

FORMS = {"words": "What is {a} plus {b}?", "signs": "{a} + {b} ="}


@register_task("sums")
class Sums(Task):
    """Sums of two whole numbers."""

    def __init__(
        self,
        num_problems: int = 50,
        largest: Annotated[int, "of the two numbers"] = 60,
        form: Annotated[str, OneOf(FORMS), "how a sum is asked for"] = "words",
        negative: Annotated[bool, "numbers below 0, too"] = False,
    ):
        whole("largest", largest)
        self.form, least = FORMS[form], -largest if negative else 1
        draw = random.Random(0)
        self.pairs = [
            (draw.randint(least, largest), draw.randint(least, largest))
            for _ in range(num_problems)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def prompt(self, i: int) -> Prompt:
        a, b = self.pairs[i]
        return self.form.format(a=a, b=b)

    def score(self, i: int, text: str) -> dict[str, Any]:
        return {"correct": last_number(text) == sum(self.pairs[i])}

    def describe(self) -> dict[str, Any]:
        return {"task": self.name, "problems": len(self), "template": self.form, "shots": 0}
