"""Caches by name, and forwards that compute positions with gaps between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import FAMILIES, micro, prompts

import dlmdecode
from dlmdecode.caches import Recompute, list_caches, register_cache
from dlmdecode.caches.registry import REGISTRY
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Positions, Scattered, Span
from dlmdecode.models.protocol import Denoiser

OPTIONS = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore"}


class OpenOnly(Recompute):
    """Exact, but gives the logits of every `stride`-th masked position only."""

    def __init__(self, model: Denoiser, stride: int = 1):
        super().__init__(model)
        self.stride = stride

    def __call__(self, rows: Canvas, wanted: Positions) -> tuple[torch.Tensor, Positions]:
        open_ = rows.masked & wanted.contains(rows.position)
        count = open_.cumsum(1) - 1
        return super().__call__(rows, Scattered(open_ & (count % self.stride == 0)))


@pytest.fixture
def open_only() -> Iterator[str]:
    register_cache("open_only", paper="this test")(OpenOnly)
    yield "open_only"
    del REGISTRY["open_only"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", ["threshold", "vanilla", "klass", "credit", "freedave"])
def test_logits_of_scattered_positions_decode_as_those_of_a_span(open_only, family, recipe):
    rows = prompts(5, 2, 9)
    whole = dlmdecode.generate(micro(family), rows, recipe, **OPTIONS)
    some = dlmdecode.generate(micro(family), rows, recipe, cache=open_only, **OPTIONS)
    assert torch.equal(whole.sequences, some.sequences) and whole.nfe == some.nfe


def test_a_cache_of_ones_own_takes_options_and_batches(open_only):
    rows = prompts(5, 2, 9)
    options = OPTIONS | {"cache": "open_only,stride=2"}
    batch = dlmdecode.generate(micro("llada"), rows, "threshold", threshold=0.3, **options)
    for i, prompt in enumerate(rows):
        alone = dlmdecode.generate(micro("llada"), prompt, "threshold", threshold=0.3, **options)
        assert torch.equal(batch.sequences[i, : len(prompt) + 24], alone.sequences[0])
    again = dlmdecode.generate(
        micro("llada"),
        rows,
        "threshold",
        threshold=0.3,
        **(OPTIONS | {"cache": lambda model: OpenOnly(model, 2)}),
    )
    assert torch.equal(batch.sequences, again.sequences)


@pytest.mark.parametrize(
    "cache, message",
    [
        ("duel", "cache='duel': give one of .*did you mean 'dual'"),
        ("dual,size=3", "cache='dual,size=3': dual takes no options"),
        ("open_only,strode=2", "open_only takes stride; did you mean 'stride'"),
        ("open_only,stride", "cache='open_only,stride': 'stride' is not of the form option=value"),
        (3, "cache=3: give a name, or what makes a forward of a model"),
    ],
)
def test_a_cache_that_is_none_is_refused(open_only, cache, message):
    with pytest.raises(ValueError, match=message):
        dlmdecode.generate(micro("llada"), prompts(3), cache=cache, max_new_tokens=8)


def test_a_name_is_registered_once_and_is_an_identifier(open_only):
    known = [
        "auto",
        "block",
        "d2",
        "dcd",
        "dkv",
        "dllm",
        "dsb",
        "dual",
        "flash",
        "none",
        "open_only",
        "prefix",
        "sparse",
    ]
    assert list_caches() == known
    with pytest.raises(ValueError, match="name='open_only': a cache of this name"):
        register_cache("open_only")(OpenOnly)
    with pytest.raises(ValueError, match="name='open only'"):
        register_cache("open only")(OpenOnly)


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
def test_scattered_positions_answer_what_spans_do(chosen):
    where = torch.tensor(chosen)
    positions, every = Scattered(where), torch.arange(9).expand_as(where)
    assert torch.equal(positions.contains(every), where)
    column = positions.column(every)
    assert column.min() >= 0 and column.max() < positions.width
    assert torch.equal(positions.at.gather(1, column)[where], every[where])
    for row, mine in enumerate(chosen):
        listed = [i for i, one in enumerate(mine) if one]
        assert positions.at[row].tolist()[: len(listed)] == listed
        if listed:
            assert (positions.lo[row], positions.hi[row]) == (listed[0], listed[-1] + 1)
    lo, hi = torch.full((len(where),), 2), torch.full((len(where),), 6)
    inside = positions.within(lo, hi)
    assert torch.equal(inside.where, where & Span(lo, hi).contains(every))
    assert torch.equal(Scattered.cat([positions, inside]).where, torch.cat([where, inside.where]))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=4))
def test_a_span_is_a_run_of_scattered_positions(ends):
    lo, hi = (torch.tensor(side) for side in zip(*map(sorted, ends), strict=True))
    every = torch.arange(9).expand(len(lo), -1)
    span = Span(lo, hi)
    scattered = Scattered(span.contains(every))
    assert span.width == scattered.width
    full = hi > lo
    assert torch.equal(span.at[full], scattered.at[full])
    inside = span.contains(every)
    assert torch.equal(span.column(every)[inside], scattered.column(every)[inside])
