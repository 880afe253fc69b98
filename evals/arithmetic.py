"""Multi-step arithmetic word problems from a seed, with solutions worked out in sentences.

    problem(0).question  "Tom finds 20 lemons in a box. He sells 25 percent of them. Emma owns 4 …"
    problem(0).solution  " Tom starts with 20 lemons. He sells 25 percent of them, 25 percent …"

A *template* is the sequence of sentence forms of a problem: an opening, one for each event, a final
question. Each template belongs to one split, so held-out problems share no template, and hence no
text, with training. The solution begins with a space: question + solution reads as one text.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

from dlmdecode.evals.arithmetic_forms import (
    COMPARISONS,
    DIFFERENCE,
    EVENTS,
    NAMES,
    OPENINGS,
    PERCENT,
    QUESTIONS,
    THINGS,
    TOGETHER,
)

SPLITS = ("train", "calibration", "heldout")
STEPS = (2, 3, 4, 5, 6)
LARGEST = 60
ENDINGS = ("one", "other", "together", "difference")


@dataclass(frozen=True)
class Problem:
    """`question` as text, `solution` (begins with a space, ends in `#### answer`), `answer`.

    `steps` is the number of equations in the solution.
    """

    question: str
    solution: str
    answer: int
    template: str
    steps: int


def problem(
    seed: int, split: str = "heldout", steps: int | None = None, largest: int = LARGEST
) -> Problem:
    """The problem of a seed, the same on every machine.

    A problem follows one person's things through gains, losses, multiples, equal shares and
    percentages; half of them then compare a second person with the first, follow that one, and may
    ask for the total or the difference.

    Args:
        seed: any integer >= 0; each split has its own problems for it.
        split: "train", "calibration" or "heldout"; they share no template and no problem text.
        steps: number of operations, 1 to 6; None draws 2 to 6. A percentage counts two.
        largest: no number of things exceeds it, 12 or more. The first is at most half of it, what
            is added or taken away at most a quarter.

    Raises:
        ValueError: an argument outside these ranges.
    """
    check(seed, split, steps, largest)
    random_ = random.Random(f"{split} {seed} {steps} {largest}")
    while True:
        drawn = Story(random_, steps or random_.choice(STEPS), largest).tell()
        if drawn is not None and split_of(drawn.template) == split:
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


class Story:
    """A problem in the making: its sentences so far, and how many things its person has."""

    def __init__(self, random_: random.Random, steps: int, largest: int):
        self.random, self.steps, self.largest = random_, steps, largest
        name, self.other, friend = random_.sample(list(NAMES), 3)
        he = dict(zip(("He", "he", "him", "His"), NAMES[name], strict=True))
        self.words = {"name": name, "other": self.other, "friend": friend, **he}
        self.words |= {"his": he["His"].lower(), "things": random_.choice(THINGS)}
        self.forms: list[str] = []
        self.question: list[str] = []
        self.solution: list[str] = []
        self.n = random_.randint(2, largest // 2)
        if random_.random() < 0.3:
            self.n = max(10, self.n // 10 * 10)

    def tell(self) -> Problem | None:
        """The problem, of whatever split its template falls into; None where it has no end."""
        ending = self.random.choices(ENDINGS, (3, 1, 1, 1))[0] if self.steps > 1 else "one"
        events = self.steps - {"one": 0, "other": 1, "together": 2, "difference": 2}[ending]
        if events < 0:
            return None
        self.say(OPENINGS, n=self.n)
        self.solution.append("{name} starts with {n} {things}.".format(n=self.n, **self.words))
        if ending == "one":
            self.follow(events)
            self.say(QUESTIONS)
        elif not self.compare(events, ending):
            return None
        text = " " + " ".join([*self.solution, f"#### {self.n}"])
        return Problem(" ".join(self.question), text, self.n, " | ".join(self.forms), self.steps)

    def say(self, forms: tuple[str, ...], end: str = "", **numbers: object) -> str:
        """Add one of `forms` to the question; what it says, without `end`."""
        self.forms.append(self.random.choice(forms))
        said = self.forms[-1].format(**numbers, **self.words)
        self.question.append(said + end)
        return said

    def follow(self, steps: int) -> None:
        """Events of the person whom the story is about."""
        while steps > 0:
            percent = self.percent() if steps > 1 and self.random.random() < 0.4 else None
            if percent is not None:
                said, taken = self.say(PERCENT, ".", b=percent), percent * self.n // 100
                left = self.n - taken
                self.solution.append(
                    f"{said}, {percent} percent of {self.n} is {taken}, "
                    f"so {self.n} - {taken} = {left}."
                )
                self.n, steps = left, steps - 2
            else:
                sign, b, result = self.operation("+-*/", (4, 4, 1, 1))
                self.work_out(self.say(EVENTS[sign], ".", b=b), sign, b, result)
                steps -= 1

    def compare(self, events: int, ending: str) -> bool:
        """Bring in the second person, follow that one, and ask; whether there is an answer."""
        before = self.random.randint(0, events)
        self.follow(before)
        first = self.n
        sign, b, result = self.operation("+-*", (2, 2, 1))
        self.work_out(self.say(COMPARISONS[sign], ".", b=b), sign, b, result)
        name, other = self.words["name"], self.words["other"]
        # From here on a pronoun could mean either person.
        self.words |= {"name": other, "other": name, **dict.fromkeys(("He", "he", "him"), other)}
        self.words |= {"His": f"{other}'s", "his": f"{other}'s"}
        self.follow(events - before)
        if ending == "other":
            self.say(QUESTIONS)
        elif ending == "together":
            self.say(TOGETHER)
            total = first + self.n
            self.solution.append(f"Together they have {first} + {self.n} = {total}.")
            self.n = total
        else:
            most, least = max(first, self.n), min(first, self.n)
            more, fewer = (name, other) if first == most else (other, name)
            self.say(DIFFERENCE, more=more, fewer=fewer)
            self.solution.append(f"The difference is {most} - {least} = {most - least}.")
            self.n = most - least
        return 1 <= self.n <= self.largest

    def work_out(self, said: str, sign: str, b: int, result: int) -> None:
        self.solution.append(f"{said}, so {self.n} {sign} {b} = {result}.")
        self.n = result

    def percent(self) -> int | None:
        """A percentage that takes and leaves whole things; None where there is none."""
        fitting = [p for p in (10, 20, 25, 50, 75) if p * self.n % 100 == 0]
        return self.random.choice(fitting) if fitting else None

    def operation(self, signs: str, weights: tuple[int, ...]) -> tuple[str, int, int]:
        """A sign, an operand and the result, which stays a whole number from 1 to `largest`."""
        while True:
            sign = self.random.choices(signs, weights)[0]
            b = self.random.randint(2, self.largest // 4 if sign in "+-" else 4)
            n = self.n
            result = {"+": n + b, "-": n - b, "*": n * b, "/": n // b}[sign]
            if 1 <= result <= self.largest and (sign != "/" or n % b == 0):
                return sign, b, result
