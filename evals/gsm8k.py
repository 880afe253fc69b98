"""GSM8K (arXiv 2110.14168): grade-school word problems, few-shot or zero-shot chain of thought.

    {"question": "Weng earns $12 an hour ...", "answer": "... <<12/60=0.2>>0.2 ...\\n#### 10"}

Three templates, because the ranking of samplers changes with the template, and the bare question,
which is what the embedded models were trained on. Two readings of the
answer, always both: *strict* asks for the form that the template shows, *flexible* takes the last
number of the text. `correct` is the flexible reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from dlmdecode.checks import OneOf
from dlmdecode.evals import numbers
from dlmdecode.evals.registry import register_task
from dlmdecode.evals.task import Prompt, Task, cut, digest, read_jsonl

SOURCE = ("openai/gsm8k", "main")
SHOTS = 8
STOPS = ("\nQuestion:", "\nQ:", "\nProblem:", "<|")

STYLES = "text|textbf|textit|textrm|mathbf|mathrm|mathit|mathsf|boxed|fbox|bf|displaystyle|left"
MARKS = r"""[\s*_`$({\[:=+>"'\u201c]"""
DECORATION = rf"(?:{MARKS}|\\(?:(?:{STYLES})\b|[(\[ ])|</?[a-z]+>)*"


@dataclass(frozen=True)
class Template:
    """How a problem is asked, how its solution is shown, and what stands before the answer."""

    question: str
    solution: str
    marker: str
    instruction: str  # instead of examples

    def shown(self, row: Mapping[str, Any]) -> str:
        """The reference solution of a row, in this template's form."""
        steps, _, answer = row["answer"].rpartition("####")
        steps = re.sub(r"<<[^>]*>>", "", steps).strip()
        return self.solution.replace("{steps}", steps).replace("{answer}", answer.strip())


TEMPLATES = {
    "gsm8k": Template(
        question="Question: {question}\nAnswer:",
        solution=" {steps}\n#### {answer}",
        marker="####",
        instruction="Work the problem out step by step. End with a line '#### ' and the number.",
    ),
    "cot": Template(
        question="Q: {question}\nA:",
        solution=" {steps} The answer is {answer}.",
        marker="the answer is",
        instruction="Think step by step and finish with 'The answer is' and the number.",
    ),
    "boxed": Template(
        question="Problem: {question}\nSolution:",
        solution=" {steps} So the result is \\boxed{{answer}}.",
        marker="\\boxed",
        instruction="Reason step by step, and put the final number within \\boxed{}.",
    ),
    "question": Template(
        question="{question}",
        solution=" {steps}\n#### {answer}",
        marker="####",
        instruction="",
    ),
}


def marked_number(text: str, marker: str) -> Fraction | None:
    """Strict: the number right after the first `marker` that has one; case does not matter.

    Markup may stand between the two. A number that goes on in an unclear way ("12,34", "5-10") is
    none.
    """
    text = numbers.plain(text)
    for found in re.finditer(re.escape(marker) + DECORATION, text, re.IGNORECASE):
        begin = found.end() - text[: found.end()].endswith("$")  # the sign belongs to the number
        if numbers.NUMBER.match(text, begin):
            return numbers.first_value(text, begin)
    return None


def last_number(text: str) -> Fraction | None:
    """Flexible: the last number of the text."""
    return numbers.last_value(numbers.plain(text))


def reference(row: Mapping[str, Any], number: int, option: str) -> Fraction:
    """The answer of a data row: the number behind its ####, or all of its answer.

    Raises `ValueError` that names the row where there is none.
    """
    tail = row["answer"].rpartition("####")[2]
    answer = marked_number(f"####{tail}", "####")
    if answer is None or answer != last_number(tail):
        raise ValueError(
            f"{option}: row {number} (question {row['question'][:40]!r}) has no readable answer "
            f"({tail.strip()[:40]!r}): give '#### ' and a number at its end"
        )
    return answer


@register_task("gsm8k")
class GSM8K(Task):
    """Problems asked with one template, after `shots` solved examples.

    Args:
        data: JSONL file with question and answer; None loads the test split from the hub.
        shots_data: JSONL file whose first rows are the examples; None: the hub's train split.
        data_revision: of the data set on the hub.

    Raises:
        ValueError: a file that is not as described, a row without a readable answer, an unknown
            template, too few examples.
    """

    def __init__(
        self,
        data: Annotated[str | None, "JSONL file (the hub's test split)"] = None,
        shots: Annotated[int, "solved examples before a problem, 0 for zero-shot"] = SHOTS,
        shots_data: Annotated[str | None, "JSONL file (the hub's train split)"] = None,
        template: Annotated[str, OneOf(TEMPLATES), "how a problem is asked"] = "gsm8k",
        chat: bool = False,
        data_revision: Annotated[str | None, "of the data set on the hub"] = None,
    ):
        if template not in TEMPLATES:
            raise ValueError(f"template={template!r}: give one of {', '.join(TEMPLATES)}")
        if shots < 0:
            raise ValueError(f"shots={shots}: give 0 or more")
        self.template_name, self.template = template, TEMPLATES[template]
        self.chat, self.revision = chat, data_revision
        self.rows = self.load(data, "test", "--data")
        examples = self.load(shots_data, "train", "--shots-data") if shots else []
        if len(examples) < shots:
            raise ValueError(f"shots={shots}: the file has {len(examples)} examples only")
        self.examples = list(examples[:shots])
        for i, row in enumerate(self.examples, 1):
            reference(row, i, "--shots-data")
        self.answers = [reference(row, i, "--data") for i, row in enumerate(self.rows, 1)]

    def load(self, path: str | None, split: str, option: str) -> Sequence[Mapping[str, Any]]:
        if path is not None:
            return read_jsonl(path, ("question", "answer"), option)
        try:
            from datasets import load_dataset

            return list(load_dataset(*SOURCE, split=split, revision=self.revision))
        except ImportError:
            raise ValueError(f"no {option}: give a JSONL file, or `pip install datasets`") from None
        except Exception as error:  # whatever the hub client raises without a network
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{option}: {SOURCE[0]} is out of reach ({reason}); give a file"
            ) from None

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, i: int) -> Prompt:
        ask = self.template.question
        turns = [(ask.replace("{question}", r["question"]), self.template.shown(r))
                 for r in self.examples]  # fmt: skip
        question = ask.replace("{question}", self.rows[i]["question"])
        if not turns and self.template.instruction:
            question = f"{self.template.instruction}\n\n{question}"
        if not self.chat:
            return "".join(f"{asked}{shown}\n\n" for asked, shown in turns) + question
        roles = [(role, text.strip()) for asked, shown in turns
                 for role, text in (("user", asked), ("assistant", shown))]  # fmt: skip
        return [{"role": role, "content": text} for role, text in [*roles, ("user", question)]]

    def score(self, i: int, text: str) -> dict[str, Any]:
        text, answer = cut(text, STOPS), self.answers[i]
        flexible = last_number(text) == answer
        strict = marked_number(text, self.template.marker) == answer
        return {"correct": flexible, "strict": strict, "flexible": flexible}

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "problems": len(self),
            "data": f"sha256 {digest([dict(row) for row in self.rows])}",
            "revision": self.revision,
            "template": self.template_name,
            "shots": len(self.examples),
            "shots_data": f"sha256 {digest([dict(row) for row in self.examples])}",
            "chat": self.chat,
            "filter": f"text up to {' '.join(map(repr, STOPS))}; correct and flexible: the last "
            f"number; strict: the number after {self.template.marker}",
            "scorer": "equal numbers",
        }
