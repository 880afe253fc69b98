"""The code in an instructed answer, however its fences are written."""

import json

import pytest

from dlmdecode.evals.humaneval import HumanEval, program_of

DEF = "def add(a, b):\n    return a + b\n"
DOCUMENTED = '''def add(a, b):
    """Add.

    ```
    add(1, 2)
    ```
    """
    return a + b
'''


STUBS = [
    "...",
    "pass",
    "raise NotImplementedError('add')",
    "# your code here",
    '"""Add."""\n    ...',
]


@pytest.mark.parametrize("stub", STUBS)
def test_a_body_that_is_still_to_be_written_is_none(stub):
    first = f"```python\ndef add(a: dict[str, int], b=(1, (2))) -> int:\n    {stub}\n```"
    assert DEF in program_of(f"{first}\nthen\n```python\n{DEF}```", "add")
    handled = "    try:\n        return a + b\n    except ValueError:\n        pass\n"
    real = f"def add(a, b):\n{handled}"
    assert handled in program_of(f"```\n{real}```\n```\n{DEF}```", "add")


@pytest.mark.parametrize("opening", ["```", "```python ", "> ```py "])
def test_a_fence_may_hold_one_line(opening):
    one = "def add(a, b): return a + b"
    assert one in program_of(f"So:\n\n{opening}{one}```\n\nIt adds.", "add")


def test_a_chat_model_s_fence_is_none_of_the_code(tmp_path):
    prompt, test = 'def add(a, b):\n    """Add."""\n', "def check(f):\n    assert f(1, 2) == 3\n"
    row = {"task_id": "t/0", "prompt": prompt, "entry_point": "add", "test": test}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    how = {"allow_code_execution": True, "weak_isolation": True}
    task = HumanEval(data=str(tmp_path / "a.jsonl"), form="completion", **how)
    for code in (f"{prompt}    return a + b\n", "    return a + b\n", DEF):
        for answer in (f"```python\n{code}```", f"\n~~~\n{code}~~~\nIt adds."):
            assert task.score(0, answer)["correct"], answer
    assert not task.score(0, "```python\n    return a - b\n```")["correct"]


def indented(text, by):
    return "".join(f"{by}{line}" if line.strip() else line for line in text.splitlines(True))


WHOLE = {
    "no fence": DEF,
    "bare": f"```\n{DEF}```",
    "language": f"```python\n{DEF}```",
    "capitals and version": f"```Python3\n{DEF}```",
    "short language": f"```py\n{DEF}```",
    "space before the language": f"``` python\n{DEF}```",
    "title": f'```python title="a b.py" linenums=1\n{DEF}```',
    "attributes": f"```{{.python .line}}\n{DEF}```",
    "attributes after the language": f"```python {{.line}}\n{DEF}```",
    "tildes": f"~~~python\n{DEF}~~~",
    "tildes around backticks": f"~~~~python\n{DOCUMENTED}~~~~",
    "longer": f"````python\n{DEF}````",
    "words before and after": f"Here it is:\n\n```python\n{DEF}```\n\nIt adds.",
    "after words on its line": f"Here: ```python\n{DEF}``` as asked",
    "carriage returns": f"Here it is:\n\n```python\n{DEF}```\n".replace("\n", "\r\n"),
    "old carriage returns": f"```python\n{DEF}```\n".replace("\n", "\r"),
    "in a list": f"1. So:\n\n{indented(f'```python{chr(10)}{DEF}```', '   ')}\n2. Done",
    "as a list item": f"- ```python\n{indented(DEF, '  ')}  ```\n",
    "in a list, code not indented": f"1. So:\n   ```python\n{DEF}   ```",
    "in a quotation": indented(f"```python\n{DEF}```", "> "),
    "code indented in the block": f"```python\n{indented(DEF, '  ')}```",
    "tabs": "```python\ndef add(a, b):\n\treturn a + b\n```",
    "closed behind code": f"```python\n{DEF.rstrip()}```\n\nDone.",
    "fences within a docstring's line": "```python\n"
    + DEF.replace("    return", '    """Use ```add(1, 2)```"""\n    return')
    + "```",
    "not closed": f"So:\n```python\n{DEF}",
    "a lone closing fence": f"{DEF}```\nIt adds two numbers.",
    "a lone closing fence, then another block": f"{DEF}```\nTry it:\n```\nadd(1, 2)\n```",
    "closed with a language": f"```python\nimport math\n```python\n{DEF}```",
    "inside a longer markdown block": f"````markdown\nSo:\n\n```python\n{DEF}```\n````\n",
    "quoted fences inside a longer block": f"````python\n{DOCUMENTED}````",
    "the signature first": f"So:\n```python\ndef add(a, b):\n```\nThen:\n```python\n{DEF}```",
    "the question first": '```python\ndef add(a, b):\n    """Add.\n\n    1: 2\n    """\n```\n'
    f"```python\n{DEF}```",
    "inside a markdown block": f"```markdown\nSo:\n```python\n{DEF}```\n```",
    "the second block": f"Run\n```sh\npip install x\n```\nand\n```python\n{DEF}```",
    "usage first": f"```python\nprint(add(1, 2))\n```\n```python\n{DEF}```",
    "a byte order mark": f"\ufeff```python\n\ufeff{DEF}```",
    "fences in a docstring": f"```python\n{DOCUMENTED}```",
    "an assignment": "```python\nadd = lambda a, b: a + b\n```",
    "a module": f"```python\nfrom __future__ import annotations\n\nimport math\n\n\n{DEF}```",
    "inline code before": f"Use `add`:\n```python\n{DEF}```",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_function_is_found_and_adds(name):
    space = {}
    code = program_of(WHOLE[name], "add")
    assert code.startswith("    pass\n\n")
    exec(code.removeprefix("    pass\n\n"), space)
    assert space["add"](1, 2) == 3


BODIES = {
    "a block": "```python\n    return a + b\n```",
    "after words": " Here:\n```python\n    return a + b\n```",
    "no fence": "    return a + b\n",
    "a lone closing fence": "    return a + b\n```\nIt adds two numbers.",
    "tildes": "~~~\n\n    return a + b\n~~~",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_alone_goes_on_from_the_prompt(name):
    code = program_of(BODIES[name], "add")
    exec("def add(a, b):\n" + code, space := {})
    assert space["add"](1, 2) == 3 and "adds" not in code


def test_of_several_blocks_the_first_that_defines_the_function_is_taken():
    first, second = DEF, DEF.replace("+", "-")
    text = f"```python\nprint(0)\n```\n```python\n{first}```\nor\n```python\n{second}```"
    assert program_of(text, "add") == f"    pass\n\n{first.rstrip()}\n"


def test_no_other_function_and_no_prose_counts_as_the_answer():
    assert program_of("```python\ndef added(a):\n    pass\n```", "add").startswith("def added")
    assert program_of("add: it adds\n```\n1\n```", "add") == "1"
    assert program_of("I cannot.", "add") == "I cannot."


PROBLEM = {
    "task_id": "Local/0",
    "prompt": 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n',
    "entry_point": "add",
    "test": "def check(f):\n    assert f(1, 2) == 3\n",
}


@pytest.fixture
def humaneval(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(PROBLEM) + "\n")
    return lambda form: HumanEval(str(path), form, True, 60.0, True, weak_isolation=True)


@pytest.mark.parametrize(
    "text",
    [
        "    return a + b\n",
        PROBLEM["prompt"] + "    return a + b\n",
        "\ufeff    return a + b\n\n\nprint(add(1, 2))",
        "    return a + b\n```\nIt adds.",
        PROBLEM["prompt"].replace("\n", "\r\n") + "    return a + b\r\n\r\ndef other(:\r\n",
    ],
)
def test_a_completion_may_repeat_the_prompt(humaneval, text):
    assert humaneval("completion").score(0, text)["reason"] == "passed"


def test_a_whole_module_answers_and_uses_what_the_prompt_imports(humaneval):
    module = f"from __future__ import annotations\n\nX: List[Later] = []\n\n\n{DEF}"
    score = humaneval("instruct").score(0, f"```python\n{module}```")
    assert score["reason"] == "passed"
    documented = 'def add(a, b):\n    """Add."""\n'
    assert not humaneval("instruct").score(0, f"```python\n{documented}```")["correct"]


@pytest.mark.parametrize("field", PROBLEM)
def test_a_problem_whose_fields_are_no_text_is_named(tmp_path, field):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({**PROBLEM, field: 7}) + "\n")
    with pytest.raises(ValueError, match=f"line 1 has {field}=7: give text"):
        HumanEval(str(path), allow_code_execution=True, weak_isolation=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("test", "", "without check"),
        ("test", "assert add(1, 2) == 3\n", "without check"),
        ("test", "def check(f):\nassert f(1, 2) == 3\n", "no Python: expected an indented block"),
        ("test", "\0", "no Python: .*null bytes"),
        ("test", "x = " + "-" * 100_000 + "1", "no Python"),
        ("entry_point", "", "entry_point=''"),
        ("entry_point", "add(", r"entry_point='add\('"),
    ],
)
def test_a_problem_that_nothing_can_pass_is_named(tmp_path, field, value, message):
    path = tmp_path / "two.jsonl"
    rows = [PROBLEM, {**PROBLEM, "task_id": "Local/1", field: value}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=f"--data: row 2 .task_id 'Local/1'. .*{message}"):
        HumanEval(str(path), allow_code_execution=True, weak_isolation=True)
