"""Stories of what somebody has, gets and gives, perhaps compared with somebody else."""

from __future__ import annotations

from dlmdecode.evals.stories.story import Clause, Story, Stuck
from dlmdecode.evals.stories.words import FORMS

SCENE_SHARE = {1: 0.4, 2: 0.35, 3: 0.25}
SCENE_SHARE_IN_TRAINING = {1: 0.75, 2: 0.6, 3: 0.35, 4: 0.1}
WEIGHTS = {
    "one": 8, "other": 2, "transfer": 1.5, "together": 2, "difference": 2, "each": 1.5,
    "price": 0.7, "need": 1,
}  # fmt: skip
ALONE = ("one", "each", "price", "need")  # the others bring in a second person
FREE = ("one", "other")  # the others end with an equation of their own


class People(Story):
    """A problem of any kind, most often a story of one or two persons with things or `money`."""

    money = False

    def tell(self) -> None:
        """Write the problem; raises `Stuck` where the numbers have no way on."""
        shares = SCENE_SHARE_IN_TRAINING if self.text.split == "train" else SCENE_SHARE
        if self.random.random() < shares.get(self.steps, 0) and self.scenes():
            self.scene()
        elif self.random.random() < (0.15 if self.steps < 4 else 0.05):
            self.crowd()
        else:
            self.person()
        if not 1 <= self.n <= self.largest:
            raise Stuck

    def person(self) -> None:
        self.money = self.random.random() < 0.2
        self.text.be_somebody()
        if self.money:
            self.text.count_money()
        else:
            self.text.count_things()
        ending = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if self.money and ending in ("each", "price"):
            ending = "one"
        compared = ending == "other" or (
            ending in ("together", "difference") and self.random.random() < 0.5
        )
        left = self.steps - (ending not in FREE) - compared
        if left < 0:
            raise Stuck
        left -= self.open(0 if ending == "transfer" else left)  # a step that no answer needs
        if ending in ALONE:
            self.follow(left)
            self.end_alone(ending)
        else:
            before = 0 if ending == "transfer" else self.random.randint(0, left)
            self.follow(before)
            self.text.avoid_pronouns()
            self.bring_in_other(ending, compared, left - before)

    def open(self, left: int) -> int:
        """The first sentence, sometimes with a step of its own; the number of its steps."""
        cost = 0
        if self.money or left == 0 or self.random.random() < 0.7:
            self.say(FORMS["money openings" if self.money else "openings"], a=self.n)
        else:
            sign, cost = self.random.choice("+*"), 1
            self.n = a = self.random.randint(2, self.largest // (2 if sign == "+" else 5))
            b = self.operand(sign, 10)
            self.work_out(sign, b)
            self.say(FORMS[f"openings {sign}"], a=a, b=b)
        self.text.introduced()
        if self.random.random() < 0.12:
            self.say(FORMS["facts"], x=self.random.randint(2, 12))
        return cost

    def follow(self, steps: int) -> None:
        """Events of the person whom the story is about."""
        clauses = []
        while steps > 0:
            cost, clause = self.event(steps)
            clauses.append(clause)
            steps -= cost
        self.join(clauses)

    def event(self, steps: int) -> tuple[int, Clause]:
        """The number of steps that an event takes, at most `steps`, and the event."""
        draw = self.random.random()
        subject = self.text.words[self.random.choice(("he", "he", "he", "name"))]
        if draw < 0.1 and steps > 1 and not self.money:
            percent = self.percent()
            taken = percent * self.n // 100
            self.solution.append(f"{percent} percent of {self.n} is {taken}.")
            self.work_out("-", taken)
            return 2, ("", self.text.say(FORMS["percent"], b=str(percent)))
        if draw < 0.25 and steps > 1:
            sign = self.random.choice("+-")
            forms = FORMS[f"{'money ' if self.money else ''}groups {sign}"]
            b, c = self.random.randint(2, 6), self.random.randint(2, 9)
            self.solution.append(f"{b} times {c}: {b} * {c} = {b * c}.")
            self.work_out(sign, b * c)
            return 2, (subject, self.text.say(forms, b=b, c=c))
        if draw < 0.3 and self.n % 2 == 0:
            self.work_out("/", 2)
            return 1, ("", self.text.say(FORMS["money half" if self.money else "half"]))
        if draw < 0.38 and not self.money:
            sign = self.random.choice("*/")
            b = self.operand(sign)
            self.work_out(sign, b)
            form = "twice" if sign == "*" and b == 2 else f"clauses {sign}"
            return 1, ("", self.text.say(FORMS[form], b=b))
        return 1, self.change(subject)

    def change(self, subject: str) -> Clause:
        """A gain or a loss."""
        sign = self.random.choice("+-")
        b = self.operand(sign)
        self.work_out(sign, b)
        money = "money " if self.money else ""
        eaten = sign == "-" and self.text.edible()
        if self.random.random() < 0.25:
            return "", self.text.say(FORMS[f"{money}clauses {sign}"] + FORMS["eaten"] * eaten, b=b)
        return subject, self.text.say(
            FORMS[f"{money}events {sign}"] + FORMS["eating"] * 3 * eaten, b=b
        )

    # A second person

    def bring_in_other(self, ending: str, compared: bool, left: int) -> None:
        """Bring in the second person, go on with that one, and ask."""
        first = self.n
        if compared:
            self.compare()
        else:
            self.n = self.random.randint(2, self.largest // 2)
            self.say(FORMS["money second" if self.money else "second"], b=self.n)
        if ending == "transfer":
            self.transfer(first)
        else:
            self.text.swap()
        self.follow(left)
        if ending in ("other", "transfer"):
            named = tuple(form for form in FORMS["money questions"] if "{name}" in form)
            self.say(named if self.money else FORMS["questions"])
        elif ending == "together":
            self.say(FORMS["together"])
            self.solution.append(f"Together: {first} + {self.n} = {first + self.n}.")
            self.n += first
        else:
            self.difference(first)

    def compare(self) -> None:
        draw = self.random.random()
        if draw < 0.12 and self.n * 2 <= self.largest:
            kind, sign, b = "twice", "*", 2
        elif draw < 0.24 and self.n % 2 == 0:
            kind, sign, b = "half", "/", 2
        else:
            kind = sign = self.random.choices("+-*", (2, 2, 1))[0]
            b = self.operand(sign)
        self.say(FORMS[f"comparisons {kind}"], b=b)
        self.work_out(sign, b)

    def transfer(self, first: int) -> None:
        """The first person gives to the second, and the story follows one of them."""
        b = self.random.randint(1, max(1, min(first - 1, self.largest // 4)))
        self.say(FORMS["transfers"], b=b)
        if self.random.random() < 0.5:
            self.text.swap()
            self.work_out("+", b)
        else:
            self.n = first
            self.work_out("-", b)

    def difference(self, first: int) -> None:
        name, other = self.text.words["name"], self.text.words["other"]
        most, least = max(first, self.n), min(first, self.n)
        more, fewer = (other, name) if first == most else (name, other)
        self.text.words |= {"more": more, "fewer": fewer}
        self.say(FORMS["difference"])
        self.solution.append(f"Difference: {most} - {least} = {most - least}.")
        self.n = most - least

    def end_alone(self, ending: str) -> None:
        """Ask for what the person has, or what that is worth, or what is missing."""
        if ending == "one":
            self.say(FORMS["money questions" if self.money else "questions"])
        elif ending == "need":
            goal = self.n + self.random.randint(1, max(1, self.largest // 3))
            if goal > self.largest:
                raise Stuck
            self.say(FORMS["needs"], b=goal)
            self.solution.append(f"Difference: {goal} - {self.n} = {goal - self.n}.")
            self.n = goal - self.n
        else:
            sign = "/" if ending == "each" else "*"
            b = self.operand(sign, 10)
            self.work_out(sign, b)
            self.say(FORMS["each" if ending == "each" else "prices"], b=b)
