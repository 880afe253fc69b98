"""Batches of training problems as token ids, a pure function of seed and step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlmdecode.evals.arithmetic import problem
from dlmdecode.evals.functions import exercise

FUNCTIONS = 5  # one text in as many is a Python function, the others are word problems
MIX = (1, 1, 2, 2, 3, 4, 5, 6)  # their steps: short ones are told in the most forms


@dataclass(frozen=True)
class Example:
    """Token ids of a question and of its solution with one end token."""

    question: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.question) + len(self.answer)


def texts(first: int, count: int, split: str = "train", longest: int = 6) -> list[tuple[str, str]]:
    """Question and solution of `count` seeds from `first` on; `longest`: steps of word problems."""
    drawn = []
    for seed in range(first, first + count):
        if seed % FUNCTIONS == 0:
            one = exercise(seed // FUNCTIONS, split)
        else:
            mix = [steps for steps in MIX if steps <= longest]
            one = problem(seed, split, mix[seed % len(mix)])
        drawn.append((one.question, one.solution))
    return drawn


def examples(
    tokenizer: Any, first: int, count: int, split: str = "train", longest: int = 6
) -> list[Example]:
    """The same as token ids."""
    drawn = texts(first, count, split, longest)
    questions = tokenizer([question for question, _ in drawn]).input_ids
    answers = tokenizer([solution for _, solution in drawn]).input_ids
    end = tokenizer.eos_token_id
    return [Example(q, [*a, end]) for q, a in zip(questions, answers, strict=True)]


class Batches:
    """`batches[step]` is a list of `size` examples of similar length.

    `group` batches are drawn together, sorted by length, cut and shuffled. `curriculum` says how
    long word problems get: [from this step on, most operations].
    """

    def __init__(
        self,
        tokenizer: Any,
        size: int,
        seed: int = 0,
        group: int = 8,
        curriculum: Sequence[Sequence[int]] = ((0, 6),),
    ):
        self.tokenizer, self.size, self.seed, self.group = tokenizer, size, seed, group
        self.curriculum = curriculum
        self.drawn: tuple[int, list[list[Example]]] = (-1, [])

    def __getitem__(self, step: int) -> list[Example]:
        number, place = divmod(step, self.group)
        if self.drawn[0] != number:
            self.drawn = (number, self.draw(number))
        return self.drawn[1][place]

    def draw(self, number: int) -> list[list[Example]]:
        count = self.group * self.size
        first = self.seed * 10**9 + number * count
        step = number * self.group
        longest = next(most for start, most in reversed(self.curriculum) if step >= start)
        ordered = sorted(examples(self.tokenizer, first, count, longest=longest), key=len)
        batches = [ordered[i : i + self.size] for i in range(0, count, self.size)]
        random_ = random.Random(f"{self.seed} {number}")
        random_.shuffle(batches)
        for batch in batches:
            random_.shuffle(batch)
        return batches
