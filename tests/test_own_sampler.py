"""A sampler that lives outside the package, with parts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
import torch
from test_contract import decoded
from torch import Tensor
from toy import FAMILIES, micro, prompts

import dlmdecode
from dlmdecode import Canvas, Sampler, Threshold, registry
from dlmdecode.checks import Count, NonNegative, check_id, number
from dlmdecode.commands import catalogue
from dlmdecode.decoding.parts import Part, Revision, Score

OPTIONS = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore", "threshold": 0.6}


@dataclass(frozen=True)
class Reserve(Score):
    """Confidence of the `tokens` less `penalty`: they are written late."""

    signed = True
    tokens: tuple[int, ...] = (5,)
    penalty: float = 0.5

    def __post_init__(self) -> None:
        number("penalty", self.penalty)

    def bind(self, model: Any) -> Self:
        for token in self.tokens:
            check_id("tokens", token, model)
        return replace(self, tokens=tuple(sorted(self.tokens)))

    def refuses(self, other: Part) -> str | None:
        return "what is taken back is not late" if other.takes_back else None

    def __call__(self, confidence: Tensor, canvas: Canvas) -> Tensor:
        late = torch.isin(canvas.proposal.token, torch.tensor(self.tokens))
        return torch.where(late, confidence - self.penalty, confidence)


@dataclass(frozen=True)
class FirstThoughts(Revision):
    """Takes back the last `count` tokens of a block's first commit, once."""

    takes_back = True
    count: int = 1

    def __call__(self, canvas: Canvas, committed: Tensor) -> None:
        many = (canvas.block_step == 1) & (committed.sum(1) > self.count)
        behind = committed.flip(1).cumsum(1).flip(1) <= self.count
        canvas.remask(committed & behind & many[:, None])


@pytest.fixture
def reserve() -> Iterator[str]:
    dlmdecode.list_samplers()
    before = dict(registry.REGISTRY)

    @dlmdecode.register_sampler("reserve", over="threshold", paper="this test")
    def reserve(tokens: Any = (5,), penalty: NonNegative = 0.5) -> Sampler:
        """Write some tokens late."""
        return Sampler(scores=(Reserve(tuple(tokens), penalty),))

    @dlmdecode.register_sampler("first_thoughts", paper="this test")
    def first_thoughts(count: Count = 1) -> Sampler:
        """Take back the last tokens of each block's first commit."""
        return Sampler(select=Threshold(0.3), revisions=(FirstThoughts(count),))

    yield "reserve"
    registry.REGISTRY.clear()
    registry.REGISTRY.update(before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("recipe", ["reserve", "reserve+localleap+credit+prophet+adablock"])
def test_it_runs_composed_in_batches_and_under_every_cache(reserve, recipe, cache, family):
    rows = prompts(5, 2, 9)
    how = OPTIONS | {"cache": cache, "tokens": range(0, 200, 2)}
    if recipe != "reserve":
        how |= {"delimiters": (194, 84), "delimiter_threshold": 0.1, "relaxed": 0.5}
    batch = dlmdecode.generate(micro(family), rows, recipe, **how)
    for i, prompt in enumerate(rows):
        alone = dlmdecode.generate(micro(family), prompt, recipe, **how)
        assert torch.equal(batch.sequences[i, : len(prompt) + 24], alone.sequences[0])
        assert batch.nfe[i] == alone.nfe[0] <= 24


def test_its_part_decides_and_drafts_over_it_are_lossless(reserve):
    rows, how = prompts(5, 2, 9), OPTIONS | {"tokens": range(200)}
    plain = dlmdecode.generate(micro("llada"), rows, "threshold", **OPTIONS)
    late = dlmdecode.generate(micro("llada"), rows, "reserve", **how)
    both = {"threshold.threshold": how["threshold"]} | how
    del both["threshold"]  # freedave has an option of this name, too
    ahead = dlmdecode.generate(micro("llada"), rows, "reserve+freedave", **both)
    nothing = dlmdecode.generate(micro("llada"), rows, "reserve", penalty=0, **how)
    assert torch.equal(nothing.sequences, plain.sequences)
    assert sum(late.nfe) > sum(plain.nfe)
    assert torch.equal(ahead.sequences, late.sequences) and sum(ahead.nfe) < sum(late.nfe)


def test_the_listing_has_it_and_says_what_it_combines_with(reserve):
    line = next(row for row in catalogue.table().rows if row[0] == "reserve")
    assert line[1:] == ("scores", "tokens=[5], penalty=0.5", "paper only", "this test")
    assert (
        "| `reserve` | scores | Write some tokens late. | paper only | this test |"
        in catalogue.markdown()
    )
    grid = catalogue.matrix(["reserve", "threshold", "wino", "freedave", "eoser"])
    cells = {line.split()[0]: line.split()[1:-1] for line in grid.splitlines()[1:6]}
    assert cells["reserve"] == ["+", "a", "+", "b"]
    assert "Reserve cannot be combined with NarrowOut: what is taken back is not late" in grid
    assert "EosRejection cannot be combined with Reserve" in grid


@pytest.mark.parametrize(
    "how, message",
    [
        ({"penalty": -1}, "penalty=-1: give a finite number, at least 0"),
        ({"tokens": (999,)}, "tokens=999: token ids are 0 to"),
        ({"sampler": "reserve+first_thoughts"}, "Reserve cannot be combined with FirstThoughts"),
        ({"sampler": "freedave+first_thoughts"}, "drafts assume that what is committed stays"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(reserve, how, message):
    how = {"sampler": reserve, "max_new_tokens": 8, **how}
    with pytest.raises(ValueError, match=message):
        dlmdecode.generate(micro("llada"), prompts(3), **how)


@pytest.mark.parametrize("recipe", ["reserve", "first_thoughts"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_it_reads_what_it_says(reserve, recipe, cache):
    built = dlmdecode.sampler(recipe, block_length=8)
    plain, spoilt = (decoded(built, "llada", cache, spoil) for spoil in (False, True))
    assert torch.equal(plain[0], spoilt[0]) and torch.equal(plain[1], spoilt[1])


def test_its_flags_are_the_recipes(reserve):
    recipe = dlmdecode.sampler("first_thoughts+prophet")
    assert recipe.takes_back and recipe.reads_canvas and not recipe.reads_committed
    assert not dlmdecode.sampler("reserve").takes_back
