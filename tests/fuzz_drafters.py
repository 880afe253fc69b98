"""Every drafter for random settings: its options, its drafts as chains or as trees."""

import random
from collections.abc import Callable
from functools import cache

from speculation_toys import Recalling, micro

import dlmdecode
from dlmdecode.models.protocol import Denoiser
from dlmdecode.speculation import (
    DiffusionDrafter,
    Draft,
    Drafter,
    FailFast,
    Fused,
    Hierarchy,
    LogitSpec,
    ObservedNGrams,
    PromptLookup,
    Recycling,
    Suffix,
    Switch,
    ThresholdDrafter,
)
from dlmdecode.speculation.drafters.combined import Combined

SIZE = 300
Texts = list[list[int]]
SHAPES = ("chain", "tree")


class Guessing(Drafter):
    """Random tokens, EOS ids of the verifier among them."""

    def __init__(self, seed: int):
        self.seed = seed

    def draft(self, prefix, length):
        choice = random.Random(f"{self.seed} {prefix[-3:]}")
        return [choice.randrange(SIZE) for _ in range(choice.randint(0, length))]


class Branching(Drafter):
    """Trees of random branches, as often as not off the right text."""

    def __init__(self, seed: int, texts: Texts):
        self.seed, self.texts = seed, texts

    def draft(self, prefix, length):
        choice = random.Random(f"{self.seed} {prefix[-3:]}")
        paths = []
        for text in [*self.texts, prefix]:
            right = text[len(prefix) : len(prefix) + choice.randint(0, length)]
            wrong = [choice.randrange(SIZE) for _ in range(choice.randint(0, 3))]
            paths.append((right + wrong)[:length])
        choice.shuffle(paths)
        return Draft.joined(paths)


class ByPosition(Recalling):
    """`Recalling` that goes on where the text has become another one."""

    def draft(self, prefix, length):
        known = (text for text in self.texts if text[:1] == prefix[:1])
        text = next(known, self.texts[0])
        drafted = text[len(prefix) : len(prefix) + length]
        wrong = [self.wrong and (len(prefix) + i) % self.wrong == 0 for i in range(len(drafted))]
        return [(t + bad) % SIZE for t, bad in zip(drafted, wrong, strict=True)]


class FirstChain(Combined):
    """The first chain of what a drafter drafts."""

    def plan(self, prefix, length):
        proposed = yield from self.ask(self.parts[0], prefix, length)
        return self.read(proposed, prefix).first_chain()


@cache
def denoiser(family: str) -> Denoiser:
    return dlmdecode.load("tiny", device="cpu") if family == "embedded" else micro("dream")


def without_model(choice: random.Random) -> Drafter:
    """A drafter that looks things up."""
    return KINDS[choice.choice(LOOKED_UP)](choice, "", [])


def diffusion(choice: random.Random, family: str, texts: Texts) -> Drafter:
    return DiffusionDrafter(denoiser(family), 1, choice.randint(1, 15), choice.random() < 0.7)


def threshold(choice: random.Random, family: str, texts: Texts) -> Drafter:
    steps, level = choice.randint(1, 4), choice.choice([0.05, 0.5, 0.9])
    return ThresholdDrafter(denoiser(family), steps, level, choice.choice([0, 0.5, 100]))


def failfast(choice: random.Random, family: str, texts: Texts) -> Drafter:
    return FailFast(denoiser(family), choice.randint(1, 12), choice.choice([0.0, 0.05, 0.45]))


def fused(choice: random.Random, family: str, texts: Texts) -> Drafter:
    model = choice.random() < 0.4
    first = diffusion(choice, family, texts) if model else without_model(choice)
    return Fused(first, without_model(choice), choice.randint(1, 40))


def switch(choice: random.Random, family: str, texts: Texts) -> Drafter:
    model = choice.random() < 0.5
    other = threshold(choice, family, texts) if model else without_model(choice)
    return Switch(other, None, choice.randint(1, 5))


KINDS: dict[str, Callable[[random.Random, str, Texts], Drafter]] = {
    "lookup": lambda choice, *_: PromptLookup(choice.randint(1, 4)),
    "suffix": lambda choice, *_: Suffix(
        [], choice.random() < 0.5, choice.randint(0, 3), choice.randint(1, 24)
    ),
    "recycling": lambda choice, *_: Recycling(
        choice.randint(1, 48), choice.randint(1, 7), choice.random() < 0.5
    ),
    "ngram": lambda choice, *_: ObservedNGrams(
        choice.randint(1, 5), choice.randint(1, 40), choice.randint(1, 12)
    ),
    "logitspec": lambda choice, *_: LogitSpec(choice.randint(1, 48), choice.randint(1, 10)),
    "hierarchy": lambda choice, *_: Hierarchy((), choice.randint(1, 10), choice.randint(1, 4)),
    "recalling": lambda choice, _, texts: ByPosition(texts, choice.choice([0, 2, 3, 5, 9])),
    "guessing": lambda choice, *_: Guessing(choice.randrange(100)),
    "diffusion": diffusion,
    "threshold": threshold,
    "failfast": failfast,
    "fused": fused,
    "switch": switch,
}
MODELS = ("causal", "layerskip")  # made of the verifiers
LOOKED_UP = ("lookup", "suffix", "recycling", "ngram", "logitspec", "hierarchy")


def shaped(
    drafter: Drafter, shape: str, choice: random.Random, texts: Texts
) -> tuple[Drafter, dict[str, str]]:
    """A drafter whose drafts are chains, or trees that branch, and the options for that."""
    if shape == "chain":
        search = {"path_search": choice.choice(["cps", "argmax"])} if drafter.searched else {}
        return FirstChain(drafter), search
    if drafter.searched:
        return drafter, {"path_search": "tree"}
    return Fused(drafter, Branching(choice.randrange(100), texts)), {}
