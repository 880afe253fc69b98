"""The word lists and sentence forms of the word problems, read from the text files beside."""

from __future__ import annotations

import random
from pathlib import Path

HE = ("He", "he", "him", "His", "his")
SHE = ("She", "she", "her", "Her", "her")
IT = ("It", "it", "it", "Its", "its")
ME = ("I", "I", "me", "My", "my")
YOU = ("You", "you", "you", "Your", "your")
UNITS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
ONSETS = "b br c ch cl d dr f fl g gl h j k kr l m n p pl qu r s sh st t th tr v w z".split() + [""]
VOWELS = "a e i o u ai ea ee io ou".split()
RHYMES = "a am an ap ard at e el en er et ia ick in ina ip ird o ock on or ow ump un y".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def sections(file: str) -> dict[str, tuple[str, ...]]:
    """The lines under each `== heading` of a text file; what precedes the first is for readers."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    parts = [part.strip().splitlines() for part in text.split("== ")[1:]]
    return {heading: tuple(lines) for heading, *lines in parts}


FORMS = sections("forms.txt")
WORDS = {
    heading: tuple(" ".join(lines).split()) for heading, lines in sections("words.txt").items()
}

LISTED = {word.lower() for words in WORDS.values() for word in words}


def plural(thing: str) -> tuple[str, str]:
    """Singular and plural of an entry of the lists: `box`, `leaf:leaves`, `toy-car`."""
    one, _, many = thing.replace("-", " ").partition(":")
    if many:
        return one, many
    if one.endswith(("s", "x", "ch", "sh", "to")):
        return one, one + "es"
    if one.endswith("y") and one[-2] not in "aeiou":
        return one, one[:-1] + "ies"
    return one, one + "s"


def invented(random_: random.Random) -> str:
    """A word of two syllables or three that is in no list, such as `stolen`."""
    count = random_.choice((1, 1, 1, 2))
    syllables = [random_.choice(ONSETS) + random_.choice(VOWELS) for _ in range(count)]
    word = "".join(syllables) + random_.choice(ONSETS) + random_.choice(RHYMES)
    return invented(random_) if word in LISTED else word


def in_words(n: int) -> str:
    """1 to 99 in words, other numbers in digits."""
    if not 1 <= n <= 99:
        return str(n)
    if n < 20:
        return UNITS[n - 1]
    ten, unit = divmod(n, 10)
    return TENS[ten - 2] + (f"-{UNITS[unit - 1]}" if unit else "")
