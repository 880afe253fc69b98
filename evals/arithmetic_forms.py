"""The sentences of the arithmetic problems, before names, things and numbers are filled in.

`{name}` is whom the sentence is about, with the pronouns `{He}`, `{he}`, `{him}`, `{His}`, `{his}`;
`{other}` is the second person of a comparison; `{friend}` is somebody who only helps. No two forms
read the same once filled in.
"""

from __future__ import annotations

HE, SHE = ("He", "he", "him", "His"), ("She", "she", "her", "Her")
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
    "{name} collects {n} {things} in a week.",
    "At first {name} owns {n} {things}.",
    "A box of {name} holds {n} {things}.",
    "{name} counts {n} {things} at home.",
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
        "{He} picks up {b} more",
        "Then {b} more come in the mail",
        "{His} teacher hands {him} {b} more",
        "{He} earns {b} more at a fair",
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
        "{He} drops {b} on the way",
        "{He} leaves {b} at home",
        "{He} sends {b} to {his} aunt",
        "Then {b} of them break",
    ),
    "*": (
        "By Friday {he} has {b} times as many",
        "After a week {he} has {b} times as many",
        "{friend} helps until {he} has {b} times as many",
        "In the end {he} has {b} times as many",
        "At the fair {he} makes them {b} times as many",
    ),
    "/": (
        "{He} fills {b} equal bags and keeps one",
        "{He} makes {b} equal piles and keeps one",
        "{He} shares them equally in a group of {b}",
        "{He} packs {b} equal boxes and keeps one",
        "{He} splits them equally with others, {b} people in all",
    ),
}
PERCENT = (
    "{He} sells {b} percent of them",
    "{He} gives {b} percent of them to {friend}",
    "{He} loses {b} percent of them",
    "{friend} takes {b} percent of them",
    "{He} gives away {b} percent of them",
    "Then {b} percent of them break",
)
COMPARISONS = {
    "+": (
        "{other} has {b} more {things} than {name}",
        "{other} has {b} {things} more than {name} has",
        "{other} owns {b} more than {name}",
    ),
    "-": (
        "{other} has {b} fewer {things} than {name}",
        "{other} has {b} {things} fewer than {name} has",
        "{other} owns {b} fewer than {name}",
    ),
    "*": (
        "{other} has {b} times as many {things} as {name}",
        "{other} owns {b} times as many as {name}",
    ),
}
QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} does {name} have in the end?",
    "Now how many {things} does {name} have?",
    "What is the number of {things} {name} has at last?",
    "Can you say how many {things} {name} has?",
    "How many {things} are left with {name}?",
)
TOGETHER = (
    "How many {things} do {other} and {name} have together?",
    "How many {things} do they have in all?",
    "What is the total number of {things} of both?",
    "How many {things} do both have in total?",
)
DIFFERENCE = (
    "How many more {things} does {more} have than {fewer}?",
    "How many {things} does {more} have more than {fewer}?",
    "By how many {things} is {more} ahead of {fewer}?",
)
