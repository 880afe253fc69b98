"""Batches of training problems as token ids, a pure function of seed and step."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dlmdecode.evals.arithmetic import problem


@dataclass(frozen=True)
class Example:
    """Token ids of a question and of its solution with one end token."""

    question: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.question) + len(self.answer)


def examples(tokenizer: Any, first: int, count: int, split: str = "train") -> list[Example]:
    """`count` problems from seed `first` on."""
    drawn = [problem(seed, split) for seed in range(first, first + count)]
    questions = tokenizer([p.question for p in drawn]).input_ids
    answers = tokenizer([p.solution for p in drawn]).input_ids
    end = tokenizer.eos_token_id
    return [Example(q, [*a, end]) for q, a in zip(questions, answers, strict=True)]


class Batches:
    """`batches[step]` is a list of `size` examples of similar length.

    `group` batches are drawn together, sorted by length, cut and shuffled.
    """

    def __init__(self, tokenizer: Any, size: int, seed: int = 0, group: int = 8):
        self.tokenizer, self.size, self.seed, self.group = tokenizer, size, seed, group
        self.drawn: tuple[int, list[list[Example]]] = (-1, [])

    def __getitem__(self, step: int) -> list[Example]:
        number, place = divmod(step, self.group)
        if self.drawn[0] != number:
            self.drawn = (number, self.draw(number))
        return self.drawn[1][place]

    def draw(self, number: int) -> list[list[Example]]:
        count = self.group * self.size
        first = self.seed * 10**9 + number * count
        ordered = sorted(examples(self.tokenizer, first, count), key=len)
        batches = [ordered[i : i + self.size] for i in range(0, count, self.size)]
        random_ = random.Random(f"{self.seed} {number}")
        random_.shuffle(batches)
        for batch in batches:
            random_.shuffle(batch)
        return batches
