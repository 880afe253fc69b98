"""Short Python functions on lists and strings from a seed: signature and docstring, then the body.

    def change(items):
        '''Sort the items, then keep the first 3.

        >>> change([5, 2, 9, 1])
        [1, 2, 5]
        '''
        items = sorted(items)
        return items[:3]

The docstring holds one doctest-like example; `check` tests others. Splits share no template, a
template being the sequence of descriptions before numbers and letters are filled in. Training alone
has further wordings.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dlmdecode.evals.arithmetic import SPLITS, split_of
from dlmdecode.evals.functions_forms import (
    ARGUMENTS,
    JOINS,
    LETTERS,
    LIST_ENDS,
    LISTS,
    NAMES,
    STRING_ENDS,
    STRINGS,
    WIDER,
)


@dataclass(frozen=True)
class Exercise:
    """`question` (signature and docstring), `solution` (the body), `check` (HumanEval's tests).

    `name` is the function's, `steps` the number of things to do.
    """

    question: str
    solution: str
    check: str
    name: str
    template: str
    steps: int


def exercise(seed: int, split: str = "heldout") -> Exercise:
    """The exercise of a seed, the same on every machine: two or three things to do.

    Args:
        seed: any integer >= 0; each split has its own exercises for it.
        split: "train", "calibration", "heldout" or "phrasing"; they share no template. The last one
            has wordings of which training has none.

    Raises:
        ValueError: an argument outside these ranges.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r}: give an integer >= 0")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    random_ = random.Random(f"functions {split} {seed}")
    while True:
        drawn = draw(random_, split)
        if split_of(drawn.template) == split:
            return drawn


def draw(random_: random.Random, split: str) -> Exercise:
    """An exercise of whatever split its template falls into."""
    phrasing = split == "phrasing"
    of_list = random_.random() < 0.6
    operations, ends = (LISTS, LIST_ENDS) if of_list else (STRINGS, STRING_ENDS)
    x = random_.choice(ARGUMENTS["lists" if of_list else "strings"])
    chosen = random_.sample(list(operations), random_.choice((1, 2)))
    asked, body = [], []
    for expression in (*chosen, random_.choice(list(ends))):
        a, b = random_.sample(LETTERS, 2)
        filled = {"x": x, "k": random_.randint(2, 5), "a": a, "b": b}
        ways = (operations | ends)[expression]
        if split == "train":
            ways += WIDER.get(expression, ())
        form = random_.choice([way for way in ways if way.startswith("~") == phrasing])
        asked.append((form, form.removeprefix("~").format(**filled)))
        body.append(expression.format(**filled))
    lines = [f"    {x} = {code}" for code in body[:-1]] + [f"    return {body[-1]}"]
    solution = "\n".join(lines) + "\n"
    name = random_.choice(NAMES["heldout" if phrasing else split])
    head = f"def {name}({x}):\n"
    inputs = [sample(random_, of_list) for _ in range(6)]
    results = run(head + solution, name, inputs)
    told = random_.choice(JOINS).join(text for _, text in asked)
    example = f"    >>> {name}({quoted(inputs[0])})\n    {quoted(results[0])}\n"
    question = f'{head}    """{told[0].upper()}{told[1:]}.\n\n{example}    """\n'
    tests = zip(inputs, results, strict=True)
    asserts = "".join(f"    assert candidate({i!r}) == {r!r}\n" for i, r in tests)
    template = " | ".join(["list" if of_list else "text", *(form for form, _ in asked)])
    return Exercise(
        question, solution, f"def check(candidate):\n{asserts}", name, template, len(asked)
    )


def sample(random_: random.Random, of_list: bool) -> list[int] | str:
    """An argument to try a function on."""
    if of_list:
        return [random_.randint(0, 9) for _ in range(random_.randint(3, 6))]
    return "".join(random_.choice(LETTERS + LETTERS.upper()) for _ in range(random_.randint(3, 6)))


def run(program: str, name: str, inputs: list[list[int] | str]) -> list[object]:
    """What our own function returns."""
    scope: dict[str, object] = {}
    exec(program, scope)
    function = scope[name]
    assert callable(function)
    return [function(value) for value in inputs]


def quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
