"""Fills sentence forms in: choices, verbs, names, things and numbers of one problem."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dlmdecode.evals.stories.words import (
    HE,
    IT,
    ME,
    SHE,
    WORDS,
    YOU,
    in_words,
    invented,
    plural,
)  # fmt: skip

# Words of which one kind is drawn for a problem, singular and plural, so that its sentences agree.
PAIRS = {
    ("box", "boxes"): ("box", "bag", "basket", "pack", "jar", "bowl"),
    ("kid", "kids"): ("friend", "child:children", "person:people", "kid", "student"),
    ("boys", "girls"): ("boys:girls", "girls:boys", "men:women", "adults:children"),
}
# Further ones, in training alone.
MORE_PAIRS = {
    "box": (
        "crate", "tray", "carton", "shelf:shelves", "drawer", "bucket", "case", "vase", "cage",
        "sack", "tin", "can", "truck", "wagon", "row", "folder", "album", "tub", "chest", "nest",
    ),
    "kid": (
        "boy", "girl", "neighbor", "player", "guest", "cousin", "brother", "sister", "worker",
        "teammate", "classmate", "visitor", "man:men", "woman:women", "pupil", "dog", "horse",
    ),
    "boys": ("women:men", "children:adults", "cats:dogs", "ducks:geese", "teachers:students"),
}  # fmt: skip
NUMBERS = frozenset(in_words(n) for n in range(1, 100))
KINDS, PROPER = ("boys", "girls", "roles", "places", "food", "objects"), ("boys", "girls")
MADE_UP = 0.3  # share of the lists of training problems whose words nobody has heard of
# Words of four letters and more that a problem's sense may hang on.
TELLING = frozenset(
    "more fewer less each every twice times half third quarter left equally percent together total "
    "difference many much than both some same evenly fairly double dozen another other rest week "
    "others needs need".split()
)
MARKS = {"train": ("", "+"), "phrasing": ("~",)}  # of the forms of a split; the others have none
CHOICE = re.compile(r"\[([^][]*)\]")
VERB = re.compile(r"<(=?)([^<>|]*)\|?([^<>]*)>")
BASE = {"has": "have", "does": "do", "goes": "go", "is": "are"}
NEEDS_PLURAL = re.compile(r"another|others|<=|\bare\b|were|\bones\b|of them [^|\]]*<")


@dataclass(frozen=True)
class Unit:
    """What is counted: apples, or dollars that may be written as `$7`."""

    one: str
    many: str
    sign: bool = False


class Text:
    """The words of one problem, and forms filled in with them; `forms` are those used so far."""

    def __init__(self, random_: random.Random, split: str):
        self.random, self.split = random_, split
        self.lists = {kind: self.drawn(kind) for kind in KINDS}
        self.past = random_.random() < 0.5
        self.spelled = random_.choice((0, 0, 0, 0.3, 0.8))
        self.forms: list[str] = []
        self.unit = Unit("", "")
        people = random_.sample(self.lists["boys"] + self.lists["girls"], 4)
        more = split == "train"
        items = WORDS["items"] + WORDS["items train"] * more
        item, item2 = map(plural, random_.sample(items, 2))
        self.words = dict(zip(("name", "other", "friend", "friend2"), people, strict=True))
        self.words["kin"] = self.pick(WORDS["kin he"] + WORDS["kin she"])
        self.words |= {"item": item[0], "items": item[1], "item2": item2[0], "items2": item2[1]}
        self.words["color"] = self.pick(WORDS["colors"])
        for (one, many), pairs in PAIRS.items():
            self.words[one], self.words[many] = plural(self.pick(pairs + MORE_PAIRS[one] * more))
        self.is_me = False
        self.be(people[0], HE if people[0] in self.lists["boys"] else SHE)

    def drawn(self, kind: str) -> tuple[str, ...]:
        """The words of a kind; those of a training problem are sometimes made up."""
        if self.split == "train" and self.random.random() < MADE_UP:
            made_up = (invented(self.random) for _ in range(4))
            return tuple(w.capitalize() if kind in PROPER else w for w in made_up)
        return WORDS[f"{kind} {'heldout' if self.split == 'phrasing' else self.split}"]

    def pick(self, choices: Sequence[str]) -> str:
        return self.random.choice(choices)

    # Whom the problem is about

    def be(self, name: str, pronouns: Sequence[str], genitive: str = "") -> None:
        self.words |= dict(zip(("He", "he", "him", "His", "his"), pronouns, strict=True))
        self.words |= {"name": name, "names": genitive or name + "'s"}

    def be_somebody(self, roles: bool = True) -> None:
        """Sometimes tell about me, you, my aunt, a farmer or a shop instead."""
        draw = self.random.random()
        if draw < 0.08:
            self.is_me = True
            self.be(*(("I", ME, "my") if draw < 0.06 else ("you", YOU, "your")))
        elif draw < 0.11:
            pronouns = self.random.choice((HE, SHE))
            whose = self.pick(("my", "my", "our"))
            kin = self.pick(WORDS["kin he" if pronouns is HE else "kin she"])
            self.be(f"{whose} {kin}", pronouns)
        elif roles and draw < 0.2:
            place = draw > 0.18
            role = self.pick(self.lists["places" if place else "roles"])
            pronouns = IT if place else self.random.choice((HE, SHE))
            self.be(f"{'an' if role[0] in 'aeiou' else 'a'} {role}", pronouns)

    def introduced(self) -> None:
        """A farmer is the farmer from now on."""
        for slot in ("name", "names"):
            self.words[slot] = re.sub(r"^an? ", "the ", self.words[slot])

    def avoid_pronouns(self) -> None:
        """A pronoun could mean either of two people."""
        if not self.is_me:
            name, names = self.words["name"], self.words["names"]
            self.be(name, (name, name, name, names, names), names)

    def swap(self) -> None:
        """Go on with the second person."""
        self.words["name"], self.words["other"] = self.words["other"], self.words["name"]
        self.words["names"], self.is_me = self.words["name"] + "'s", False
        self.avoid_pronouns()

    # What is counted

    def count_things(self, colors: bool = True) -> None:
        kind = "food" if self.random.random() < 0.4 else "objects"
        one, many = plural(self.pick(self.lists[kind]))
        self.unit = Unit(one, many)
        if colors and self.random.random() < 0.12:
            color = self.pick(WORDS["colors"])
            self.unit = Unit(f"{color} {one}", f"{color} {many}")

    def edible(self) -> bool:
        return self.unit.one.split()[-1] in self.lists["food"]

    def count_money(self) -> None:
        currency = self.pick(WORDS["currencies"])
        sign = currency == "dollar" and self.random.random() < 0.4
        self.unit = Unit(currency, currency + "s", sign)

    def number(self, n: int | str) -> str:
        return in_words(n) if isinstance(n, int) and self.random.random() < self.spelled else str(n)

    def amount(self, n: int | str) -> str:
        """A number with its unit."""
        return f"${n}" if self.unit.sign else f"{self.number(n)} {self.unit.many}"

    # Sentences

    def say(self, forms: Sequence[str], **numbers: int | str) -> str:
        """One of the forms that belong to this split and suit these numbers, filled in."""
        fitting = self.suiting(forms)
        if 1 in numbers.values():
            fitting = [form for form in fitting if not NEEDS_PLURAL.search(form)] or fitting
        self.forms.append(self.pick(fitting))
        return self.fill(self.forms[-1].lstrip("~+"), **numbers)

    def suiting(self, forms: Sequence[str]) -> list[str]:
        """Those of the forms that belong to this split."""
        marks = MARKS.get(self.split, ("",))
        return [form for form in forms if (form[0] if form[0] in "~+" else "") in marks]

    def fill(self, text: str, **numbers: int | str) -> str:
        text = VERB.sub(self.verb, text)
        while CHOICE.search(text):
            text = CHOICE.sub(lambda found: self.pick(found.group(1).split("|")), text)
        slots = dict(self.words, things=self.unit.many, thing=self.unit.one)
        for slot, n in numbers.items():
            slots[slot] = self.number(n)
            slots[slot.upper()] = self.amount(n)
        text = text.format(**slots)
        if self.unit.many:
            lone = rf"(?<![-\w])(1|[Oo]ne) ((?:\w+ )?){re.escape(self.unit.many)}\b"
            text = re.sub(lone, rf"\1 \2{self.unit.one}", text)
        text = re.sub(r"\b([Dd]o)es (I|you)\b", r"\1 \2", text)  # asked about me as the second one
        if self.split == "train" and self.random.random() < 0.7:
            text = re.sub(r"\b(2|two) times as\b", "twice as", text)
        return " ".join(text.split())

    def lowered(self, sentence: str) -> str:
        """A sentence that goes on after another: without its capital unless a name begins it."""
        first = re.match(r"[\w-]+", sentence)
        names = [word for kind in PROPER for word in self.lists[kind]] + ["I"]
        if first is None or first[0] in names:
            return sentence
        return sentence[0].lower() + sentence[1:]

    def with_strange_words(self, text: str) -> str:
        """One or two of its longer words made up: a verb, a place."""
        for _ in range(self.random.choice((1, 1, 2))):
            words = [w for w in re.finditer(r"(?<![-\w'])[a-z]{4,}(?![-\w'])", text)]
            words = [w for w in words if w[0] not in TELLING and w[0] not in NUMBERS]
            if words:
                word = self.random.choice(words)
                text = text[: word.start()] + invented(self.random) + text[word.end() :]
        return text

    def verb(self, found: re.Match[str]) -> str:
        """A verb in the story's tense; that of me or you without its s."""
        others, present, past = found.groups()
        if past and self.past and past != present:
            were = past == "was" and self.words["name"] == "you" and not others
            return "were" if were else past
        if others or not self.is_me:
            return present
        if present == "is":
            return "am" if self.words["name"] == "I" else "are"
        return BASE.get(present) or re.sub(
            r"(?<=sh|ch|ss)es$|s$", "", re.sub("ies$", "ys", present)
        )


def split_sentences(text: str) -> list[str]:
    """The sentences of a form that tells several, each with a capital letter and an end."""
    parts = re.split(r"(?<=[.?]) ", text)
    return [part[0].upper() + part[1:] + ("" if part[-1] in ".?" else ".") for part in parts]
