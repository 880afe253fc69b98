"""Short Python functions on lists and strings from a seed: signature and docstring, then the body.

    def change(items):
        '''Sort the items, then keep the first 3.

        >>> change([5, 2, 9, 1])
        [1, 2, 5]
        '''
        items = sorted(items)
        return items[:3]

The docstring holds one doctest-like example; `check` tests others. Splits share no template, a
template being the sequence of descriptions before numbers and letters are filled in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dlmdecode.evals.arithmetic import SPLITS, split_of

Operations = dict[str, tuple[str, ...]]  # expression -> ways to ask for it
LISTS: Operations = {
    "sorted({x})": ("sort the items", "put the items in order", "order the items by size"),
    "sorted({x}, reverse=True)": ("sort from large to small", "put the largest items first"),
    "{x}[::-1]": ("reverse the items", "turn the order around"),
    "{x}[:{k}]": ("keep the first {k} items", "take the first {k} items"),
    "{x}[{k}:]": ("drop the first {k} items", "skip the first {k} items"),
    "{x}[-{k}:]": ("keep the last {k} items", "take the last {k} items"),
    "[item + {k} for item in {x}]": ("add {k} to each item", "raise each item by {k}"),
    "[item - {k} for item in {x}]": ("subtract {k} from each item", "lower each item by {k}"),
    "[item * {k} for item in {x}]": (
        "multiply each item by {k}",
        "make each item {k} times as big",
    ),
    "[item for item in {x} if item > {k}]": ("keep the items above {k}", "keep what exceeds {k}"),
    "[item for item in {x} if item < {k}]": ("keep the items below {k}", "drop {k} and above"),
    "[item for item in {x} if item % 2 == 0]": ("keep the even items", "drop the odd items"),
    "[item for item in {x} if item % 2 == 1]": ("keep the odd items", "drop the even items"),
}
LIST_ENDS: Operations = {
    "{x}": ("return the items", "return the list"),
    "sum({x})": ("return the sum", "add all up"),
    "len({x})": ("return how many there are", "count the items"),
    "max({x}, default=0)": ("return the largest item", "return the maximum"),
    "min({x}, default=0)": ("return the smallest item", "return the minimum"),
}
STRINGS: Operations = {
    "{x}.upper()": ("make the text upper case", "use capital letters"),
    "{x}.lower()": ("make the text lower case", "use small letters"),
    "{x}[::-1]": ("reverse the text", "turn the text around"),
    "{x}[:{k}]": ("keep the first {k} letters", "cut after {k} letters"),
    "{x}[{k}:]": ("drop the first {k} letters", "skip the first {k} letters"),
    "{x} * {k}": ("repeat the text {k} times", "write the text {k} times"),
    '{x}.replace("{a}", "{b}")': ('replace "{a}" by "{b}"', 'turn each "{a}" into "{b}"'),
    '{x} + "{b}"': ('add "{b}" at the end', 'append "{b}"'),
    '"{b}" + {x}': ('put "{b}" in front', 'begin with "{b}"'),
}
STRING_ENDS: Operations = {
    "{x}": ("return the text", "return the result"),
    "len({x})": ("return the length", "count the letters"),
    '{x}.count("{a}")': ('count each "{a}"', 'return how often "{a}" occurs'),
}
NAMES = ("change", "solve", "process", "transform", "convert", "work")
LETTERS = "abcdeiorst"


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
        split: "train", "calibration" or "heldout"; they share no template.

    Raises:
        ValueError: an argument outside these ranges.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r}: give an integer >= 0")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    random_ = random.Random(f"functions {split} {seed}")
    while True:
        drawn = draw(random_)
        if split_of(drawn.template) == split:
            return drawn


def draw(random_: random.Random) -> Exercise:
    """An exercise of whatever split its template falls into."""
    of_list = random_.random() < 0.6
    operations, ends, x = (LISTS, LIST_ENDS, "items") if of_list else (STRINGS, STRING_ENDS, "text")
    chosen = random_.sample(list(operations), random_.choice((1, 2)))
    asked, body = [], []
    for expression in (*chosen, random_.choice(list(ends))):
        a, b = random_.sample(LETTERS, 2)
        filled = {"x": x, "k": random_.randint(2, 5), "a": a, "b": b}
        form = random_.choice((operations | ends)[expression])
        asked.append((form, form.format(**filled)))
        body.append(expression.format(**filled))
    lines = [f"    {x} = {code}" for code in body[:-1]] + [f"    return {body[-1]}"]
    solution = "\n".join(lines) + "\n"
    name = random_.choice(NAMES)
    head = f"def {name}({x}):\n"
    inputs = [sample(random_, of_list) for _ in range(6)]
    results = run(head + solution, name, inputs)
    told = ", then ".join(text for _, text in asked)
    example = f"    >>> {name}({quoted(inputs[0])})\n    {quoted(results[0])}\n"
    question = f'{head}    """{told[0].upper()}{told[1:]}.\n\n{example}    """\n'
    tests = zip(inputs, results, strict=True)
    asserts = "".join(f"    assert candidate({i!r}) == {r!r}\n" for i, r in tests)
    template = " | ".join([x, *(form for form, _ in asked)])
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
