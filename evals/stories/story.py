"""Word problems in the making: their sentences and equations, short scenes, and crowds."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from dlmdecode.evals.stories.text import Text, Unit, split_sentences
from dlmdecode.evals.stories.typed import typed
from dlmdecode.evals.stories.words import FORMS, plural

SAID = {"+": "Add {b}", "-": "Take away {b}", "*": "Times {b}", "/": "Divide by {b}"}
LEADS = (
    "then", "later", "after that", "the next day", "in the evening", "in the afternoon", "next",
    "on Tuesday", "a week later", "at home", "at school", "yesterday", "soon after", "finally",
)  # fmt: skip
MORE_LEADS = LEADS + (
    "half an hour later", "two days later", "an hour later", "the following week", "one day",
    "in the morning", "on the way home", "this week", "after lunch", "at the weekend", "soon",
)  # fmt: skip
GLUE = ("and", "and then", ", then", "but", ", and then", "and later", ", and after that")
TOLD_AS_ONE = (" and ", ", and ", ", ", " but ", "; ")
MERGED = 0.12  # share of the neighbouring sentences of training problems that are told as one
STRANGE = 0.2  # share of the training problems with a made-up word or two for common ones
TYPED = 0.25  # share of the training problems that are not written as in a book
SCENES = {form.removeprefix("scene "): FORMS[form] for form in FORMS if form.startswith("scene ")}
KNOWN = {int(form.split()[1]): FORMS[form] for form in FORMS if form.startswith("known ")}
KNOWN_SHARE = 0.2  # of the training's scenes of one product
PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 10: "a tenth"}
CROWDS = ("bus", "room", "pond")

Clause = tuple[str, str]  # subject, empty where the text brings its own, and text


class Stuck(Exception):
    """No number fits what was drawn so far."""


class Story:
    """`sentences` and `solution`, and `n`, the number that the story has come to."""

    def __init__(self, random_: random.Random, split: str, steps: int, largest: int):
        self.random, self.steps, self.largest = random_, steps, largest
        self.text = Text(random_, split)
        self.sentences: list[str] = []
        self.solution: list[str] = []
        self.n = random_.randint(2, largest // 2 if random_.random() < 0.8 else largest)
        if self.n > 14 and random_.random() < 0.25:
            self.n = self.n // 10 * 10

    def question(self) -> str:
        """The sentences as one text; in training some neighbours are told as one sentence, and
        some words are ones that nobody has heard of."""
        told = self.sentences[:1]
        for sentence in self.sentences[1:-1]:
            merge = self.text.split == "train" and self.random.random() < MERGED
            if merge and told[-1].endswith("."):
                told[-1] = told[-1][:-1] + self.text.pick(TOLD_AS_ONE) + self.text.lowered(sentence)
            else:
                told.append(sentence)
        text = " ".join(told + self.sentences[1:][-1:])
        if self.text.split != "train":
            return text
        if self.random.random() < STRANGE:
            text = self.text.with_strange_words(text)
        return typed(text, self.random) if self.random.random() < TYPED else text

    def scenes(self) -> list[str]:
        """The signs of the scenes of as many steps that this split has a form for; in training as
        often as it has forms."""
        forms = {s: self.text.suiting(SCENES[s]) for s in SCENES if len(s) == self.steps}
        often = self.text.split == "train"
        return [s for s, some in forms.items() for _ in (some if often else some[:1])]

    def scene(self) -> None:
        """A short problem that one form tells as a whole."""
        self.text.be_somebody(roles=False)
        self.text.count_things(colors=False)
        signs = self.random.choice(self.scenes())
        if signs == "*" and self.text.split == "train" and self.random.random() < KNOWN_SHARE:
            return self.known()
        if signs[0] == "*":
            self.n = self.random.randint(2, 10)
        told = {"a": self.n}
        for slot, sign in zip("bcd", signs, strict=False):
            told[slot] = self.operand(sign, 10)
            self.work_out(sign, told[slot])
        unused = {
            "z": min(sum(told.values()) + self.random.randint(1, 9), self.largest),
            "c": self.random.randint(2, 9),
        }
        part = {"part": PARTS.get(told["b"], "")}
        self.say(SCENES[signs], **(unused | part | told))
        form = self.text.forms[-1]
        if "o'clock" in form and max(told["a"], self.n) > 12:
            raise Stuck
        if "{part}" in form and told["b"] not in PARTS:
            raise Stuck
        # A form can tell it all: other numbers make another template.
        self.text.forms.append(" ".join(map(str, told.values())))

    def known(self) -> None:
        """A multiple of a number that everybody knows and nobody tells, such as a week's days."""
        b = self.random.choice(list(KNOWN))
        self.n = a = self.random.randint(2, max(2, self.largest // b))
        self.work_out("*", b)
        self.say(KNOWN[b], a=a)
        self.text.forms.append(str(a))

    def crowd(self) -> None:
        """People on a bus, children in a park, birds in a tree."""
        kind = self.random.choice(CROWDS)
        self.text.unit = Unit(*plural(self.text.pick(FORMS[f"{kind} units"])))
        self.say(FORMS[f"{kind} openings"], a=self.n)
        clauses = []
        for _ in range(self.steps):
            sign = self.random.choice("+-")
            b = self.operand(sign)
            self.work_out(sign, b)
            clauses.append(("", self.text.say(FORMS[f"{kind} {sign}"], b=b)))
        self.join(clauses)
        self.say(FORMS[f"{kind} questions"])

    # Sentences

    def say(self, forms: Sequence[str], **numbers: int | str) -> None:
        """Add the sentences of one of the forms."""
        self.sentences += split_sentences(self.text.say(forms, **numbers))

    def join(self, clauses: list[Clause]) -> None:
        """Add the clauses, one to three in a sentence."""
        while clauses:
            count = self.random.choice((1, 1, 1, 2, 2, 3))
            part, clauses = clauses[:count], clauses[count:]
            text = self.clause(part[0], lead=bool(part[0][0]) and self.random.random() < 0.3)
            for i, (subject, said) in enumerate(part[1:], 1):
                bare = bool(subject) and bool(part[i - 1][0]) and self.random.random() < 0.8
                word = self.text.pick(GLUE) if i == len(part) - 1 else ","
                again = said if bare else self.clause((subject, said))
                text = f"{text} {word} {again}".replace(" ,", ",")
            text = re.sub(r"\b(later|then|after that),? (later|then)\b", r"\1", text)
            self.sentences += split_sentences(text)

    def clause(self, part: Clause, lead: bool = False) -> str:
        text = " ".join(filter(None, part))
        leads = MORE_LEADS if self.text.split == "train" else LEADS
        word = self.text.pick(leads) if lead else ""
        return word + self.text.pick((" ", ", ")) + text if lead else text

    # Numbers

    def work_out(self, sign: str, b: int) -> None:
        """One equation of the solution."""
        n = self.n
        result = {"+": n + b, "-": n - b, "*": n * b, "/": n // b}[sign]
        if not 1 <= result <= self.largest:
            raise Stuck
        self.solution.append(f"{SAID[sign].format(b=b)}: {n} {sign} {b} = {result}.")
        self.n = result

    def operand(self, sign: str, factor: int = 4) -> int:
        """A number that leads to a whole one from 1 to `largest`; factors go to `factor`."""
        n, largest = self.n, self.largest
        fitting: Sequence[int]
        if sign in "+-":
            most = largest - n if sign == "+" else n - 1
            wanted = self.random.choice((largest // 6, largest // 4, largest // 4, largest // 2))
            low = 1 if self.random.random() < 0.1 else 2
            fitting = range(low, min(most, wanted) + 1)
        elif sign == "*":
            fitting = range(2, min(factor, largest // n) + 1)
        else:
            fitting = [b for b in range(2, factor + 1) if n % b == 0]
        if not fitting:
            raise Stuck
        return self.random.choice(fitting)

    def percent(self) -> int:
        """A percentage that takes and leaves whole things."""
        fitting = [p for p in (10, 20, 25, 50, 75) if p * self.n % 100 == 0]
        if not fitting:
            raise Stuck
        return self.random.choice(fitting)
