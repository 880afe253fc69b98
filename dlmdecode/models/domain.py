"""Whether a prompt is of the kind that the embedded models were trained on.

They know arithmetic word problems and small Python functions, nothing else. A word problem tells
two numbers or more, all of them small (what everybody knows, as a dozen, counts), and asks for one;
a function has one argument and a docstring with an example.
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
    r"|forty|fifty|sixty|half|thirds?|quarters?|twice|doubl\w+|dozens?|pairs?|twins|weeks?|years?"
    r"|feet)\b",
    re.IGNORECASE,
)
ASKED = re.compile(
    r"\bhow (many|much|old|far|long|warm|hot|cold|tall|big|large|high|heavy|deep|fast)\b"
    r"|\bwhat('?s| is| are| was| were| do| does| did| will| must| number| sum| amount| remains"
    r"| separates| percent| page| floor| height)\b"
    r"|\bwhich (number|step|floor|page)\b|\b(when|where) (do|does|did|is|will)\b"
    r"|\b(find|give|tell me|work out) (the|what|[a-z]+'s)\b|\b(calculate|compute|solve|add up)\b"
    r"|[0-9a-z]+ *[-+*/x\u00d7\u00f7] *[0-9]+ *(=|\?|$)",  # 7 + 5 = ?
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
