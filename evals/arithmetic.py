"""Arithmetic word problems of one to six steps from a seed, with their equations as solution.

    problem(2).question  "Hiro collects 10 turnips in a week. He supplies Heidi with 4 turnips, …"
    problem(2).solution  " Take away 4: 10 - 4 = 6. Add 3: 6 + 3 = 9. #### 9"

A *template* is the sequence of sentence forms of a problem: an opening, one for each event, a final
question. Each template belongs to one split, so that held-out problems share no template, and hence
no text, with training; they also have names and things of their own. Those of the split "phrasing"
are told in forms of which training has none. Training alone has further forms, and made-up names
and things, so that what a model has never read is no surprise to it. The solution begins with a
space: question + solution reads as one text.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

from dlmdecode.evals.stories.people import People
from dlmdecode.evals.stories.story import Stuck

SPLITS = ("train", "calibration", "heldout", "phrasing")
STEPS = (1, 2, 3, 4, 5, 6)
LARGEST = 60


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

    Most problems follow somebody's things or money through gains, losses, multiples, equal shares
    and percentages, and may bring in a second person; some are about a crowd that comes and goes;
    those of one and two steps are also about prices, ages, distances and the like. The share of
    numbers in words, a fact without use, tense and pronouns vary.

    Args:
        seed: any integer >= 0; each split has its own problems for it.
        split: "train", "calibration", "heldout" or "phrasing"; they share no template, no name and
            no problem text, except that the last two have the same names.
        steps: number of operations, 1 to 6; None draws. A percentage counts two.
        largest: no number of things exceeds it, 12 or more; what is added or taken away is at most
            half of it.

    Raises:
        ValueError: an argument outside these ranges.
    """
    check(seed, split, steps, largest)
    random_ = random.Random(f"{split} {seed} {steps} {largest}")
    steps = steps or random_.choice(STEPS)
    while True:
        story = People(random_, split, steps, largest)
        try:
            story.tell()
        except Stuck:
            continue
        template = " | ".join(story.text.forms)
        if split_of(template) == split:
            solution = " " + " ".join([*story.solution, f"#### {story.n}"])
            return Problem(story.question(), solution, story.n, template, story.steps)


def final_answer(text: str) -> int | None:
    """The number after the first `####` of a solution; None if there is none."""
    found = re.search(r"####\s*(-?\d+)", text)
    return int(found.group(1)) if found else None


def split_of(template: str) -> str:
    """By a stable hash: one template in ten is held out, one in ten is for calibration."""
    if "~" in template:
        return "phrasing"
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
