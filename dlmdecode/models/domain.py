"""Whether a prompt is of the kind that the embedded models were trained on.

They know arithmetic word problems and small Python functions, nothing else. A word problem tells
two numbers or more, all of them small, and asks for one; a function has one argument and a
docstring with an example.
"""

from __future__ import annotations

import re
import sys

KNOWN = (
    "arithmetic word problems with numbers to 60 and small Python functions with an example (>>>)"
)
LARGEST = 100  # percentages too
NUMBER = re.compile(
    r"\d+|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty"
    r"|forty|fifty|sixty|half|twice|doubl\w+)\b",
    re.IGNORECASE,
)
ASKED = re.compile(
    r"\bhow (many|much|old|far|long|warm|tall|big|large|high|heavy)\b"
    r"|\bwhat (is|are|was|were|do|does|did|number|sum|amount|remains|separates)\b"
    r"|\bwhen (do|does|did|is)\b|\b(find|give|tell me) the number\b",
    re.IGNORECASE,
)
FUNCTION = re.compile(r'def \w+\(\w+\):\n +""".*>>> ', re.DOTALL)


def is_foreign(prompt: str) -> bool:
    """Whether a prompt looks like neither a word problem nor the head of a function."""
    if prompt.startswith("def "):
        return not FUNCTION.match(prompt)
    numbers = [found.group() for found in NUMBER.finditer(prompt)]
    small = all(int(number) <= LARGEST for number in numbers if number.isdecimal())
    return len(numbers) < 2 or not small or not ASKED.search(prompt)


def advise(name: str, prompt: str, options: str) -> None:
    """A line on standard error for who asks an embedded model something else.

    Args:
        options: those that load another model.
    """
    if is_foreign(prompt):
        print(
            f"dlmdecode: note: {name} is an embedded model that knows {KNOWN} and nothing else; "
            f"load another one with {options}",
            file=sys.stderr,
        )
