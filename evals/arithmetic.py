"""Multi-step arithmetic word problems from a seed, with solutions worked out in sentences.

    problem(0).question  "Sara finds 2 lemons in a box. She takes 10 more from a drawer. Now how …"
    problem(0).solution  " Sara starts with 2 lemons. She takes 10 more …, so 2 + 10 = 12. #### 12"

A *template* is an opening, one event per step and a final question, before names, things and
numbers are filled in. Each template belongs to one split, so held-out problems share no template,
and hence no text, with training. The solution begins with a space: question + solution reads as
one text.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

SPLITS = ("train", "calibration", "heldout")
STEPS = (1, 2, 3)  # what the embedded model was trained for
LARGEST = 40

HE, SHE = ("He", "he", "him", "his"), ("She", "she", "her", "her")
NAMES = {
    **dict.fromkeys("Tom Ben Sam Leo Max Paul Omar Ivan Hugo Noah Liam Kofi Juan Ravi".split(), HE),
    **dict.fromkeys(
        "Anna Mia Lucy Emma Nina Rosa Sara Kate Zoe Lena Maya Aiko Ines Tara".split(), SHE
    ),
}
THINGS = (
    "apples pears plums lemons eggs cookies candies books pens pencils stickers stamps coins cards "
    "marbles balls shells stones flowers beads buttons ribbons keys tickets"
).split()
OPENINGS = (
    "{name} has {n} {things}.",
    "{name} starts with {n} {things}.",
    "{name} buys {n} {things} at the market.",
    "{name} finds {n} {things} in a box.",
    "{name} brings {n} {things} to school.",
    "There are {n} {things} in the bag of {name}.",
    "In the morning {name} has {n} {things}.",
    "{name} keeps {n} {things} on a shelf.",
)
EVENTS = {
    "+": (
        "{He} buys {b} more",
        "{He} finds {b} more",
        "{He} wins {b} more",
        "{He} gets {b} more from {friend}",
        "{friend} gives {him} {b} more",
        "{friend} brings {him} {b} more",
        "{He} takes {b} more from a drawer",
        "{His} mother adds {b} more",
    ),
    "-": (
        "{He} loses {b}",
        "{He} sells {b}",
        "{He} gives {b} to {friend}",
        "{He} gives away {b}",
        "{He} throws {b} away",
        "{friend} takes {b} of them",
        "{friend} borrows {b}",
        "{His} brother hides {b}",
    ),
    "*": (
        "By Friday {he} has {b} times as many",
        "After a week {he} has {b} times as many",
        "{friend} helps until {he} has {b} times as many",
    ),
    "/": (
        "{He} fills {b} equal bags and keeps one",
        "{He} makes {b} equal piles and keeps one",
        "{He} shares them equally in a group of {b}",
    ),
}
QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} does {he} have in the end?",
    "Now how many {things} does {name} have?",
    "What is the number of {things} {he} has at last?",
    "Can you say how many {things} {name} has?",
)


@dataclass(frozen=True)
class Problem:
    """`question` as text, `solution` (begins with a space, ends in `#### answer`), `answer`."""

    question: str
    solution: str
    answer: int
    template: str
    steps: int


def problem(
    seed: int, split: str = "heldout", steps: int | None = None, largest: int = LARGEST
) -> Problem:
    """The problem of a seed, the same on every machine.

    Args:
        seed: any integer >= 0; each split has its own problems for it.
        split: "train", "calibration" or "heldout"; they share no template and no problem text.
        steps: number of operations, 1 to 6; None draws 1, 2 or 3.
        largest: no number in the problem exceeds it, 12 or more. The first number is at most half
            of it, what is added or taken away at most a quarter.

    Raises:
        ValueError: an argument outside these ranges.
    """
    check(seed, split, steps, largest)
    random_ = random.Random(f"{split} {seed} {steps} {largest}")
    while True:
        drawn = draw(random_, steps or random_.choice(STEPS), largest)
        if split_of(drawn.template) == split:
            return drawn


def final_answer(text: str) -> int | None:
    """The number after the first `####` of a solution; None if there is none."""
    found = re.search(r"####\s*(-?\d+)", text)
    return int(found.group(1)) if found else None


def split_of(template: str) -> str:
    """One template in ten is held out, one in ten is for calibration, by a stable hash."""
    return {0: "heldout", 1: "calibration"}.get(zlib.crc32(template.encode()) % 10, "train")


def check(seed: int, split: str, steps: int | None, largest: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r}: give an integer >= 0")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    if steps is not None and steps not in range(1, 7):
        raise ValueError(f"steps={steps!r}: give 1 to 6, or None")
    if not isinstance(largest, int) or largest < 12:
        raise ValueError(f"largest={largest!r}: give an integer >= 12")


def draw(random_: random.Random, steps: int, largest: int) -> Problem:
    """A problem of whatever split its template falls into."""
    words = cast(random_)
    n = random_.randint(2, largest // 2)
    forms = [random_.choice(OPENINGS)]
    question = [forms[0].format(n=n, **words)]
    solution = ["{name} starts with {n} {things}.".format(n=n, **words)]
    for _ in range(steps):
        sign, b, result = operation(random_, n, largest)
        forms.append(random_.choice(EVENTS[sign]))
        event = forms[-1].format(b=b, **words)
        question.append(f"{event}.")
        solution.append(f"{event}, so {n} {sign} {b} = {result}.")
        n = result
    forms.append(random_.choice(QUESTIONS))
    question.append(forms[-1].format(**words))
    text = " " + " ".join([*solution, f"#### {n}"])
    return Problem(" ".join(question), text, n, " | ".join(forms), steps)


def cast(random_: random.Random) -> dict[str, str]:
    """Who and what the problem is about, with the pronouns of its main person."""
    name, friend = random_.sample(list(NAMES), 2)
    he = dict(zip(("He", "he", "him", "his"), NAMES[name], strict=True))
    return {"name": name, "friend": friend, "things": random_.choice(THINGS), **he} | {
        "His": he["his"].capitalize()
    }


def operation(random_: random.Random, n: int, largest: int) -> tuple[str, int, int]:
    """A sign, an operand and the result, which stays a whole number from 1 to `largest`."""
    while True:
        sign = random_.choices("+-*/", (4, 4, 1, 1))[0]
        b = random_.randint(2, largest // 4 if sign in "+-" else 4)
        result = {"+": n + b, "-": n - b, "*": n * b, "/": n // b}[sign]
        if 1 <= result <= largest and (sign != "/" or n % b == 0):
            return sign, b, result
