"""Every sampler on every family, under every cache that makes sense there.

A ragged batch equals its single runs, and the committed cache no cache. Each sampler runs with one
family here; `pytest -m slow` runs all pairs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_samplers import UNCACHED, UNSHIFTED, caches_of, options
from toy import BLOCK_CAUSAL, FULL_ATTENTION, micro, prompts

import dlmdecode

LENGTH = 16
SHAPE = {"max_new_tokens": LENGTH, "block_length": 8, "eos": "ignore"}
SAMPLERS = dlmdecode.list_samplers()


def pairs(families: tuple[str, ...], caches: tuple[str, ...]) -> list[Any]:
    """All cases; those off a diagonal, which has every sampler, family and cache, are slow."""
    cases = []
    for i, sampler in enumerate(SAMPLERS):
        for j, family in enumerate(families):
            for k, cache in enumerate(caches):
                quick = i % len(families) == j and i // len(families) % len(caches) == k
                marks = () if quick else (pytest.mark.slow,)
                cases.append(pytest.param(family, sampler, cache, marks=marks))
    return cases


def run(family: str, sampler: str, cache: str, rows: Any) -> dlmdecode.Generation:
    return dlmdecode.generate(
        micro(family), rows, sampler, cache=cache, **(SHAPE | options(sampler))
    )


def skip_what_is_refused(family: str, sampler: str, cache: str) -> None:
    shifted = sampler in UNSHIFTED and micro(family).shift
    causal = sampler in ("dawn", "polestar") and micro(family).block_length is not None
    if sampler in UNCACHED and (cache != "none" or shifted or causal):
        with pytest.raises(ValueError, match="(?i)wino|dawn|A-CFG|polestar|flash"):
            run(family, sampler, cache, prompts(3))
        pytest.skip("it has a forward of its own")
    if cache in ("prefix", "dual") and cache not in caches_of(sampler):
        with pytest.raises(ValueError, match="window slides"):
            run(family, sampler, cache, prompts(3))
        pytest.skip("its window slides")


def assert_rows_are_single_runs(out: Any, family: str, sampler: str, cache: str) -> None:
    for i, length in enumerate(out.prompt_lengths):
        alone = run(family, sampler, cache, out.sequences[i, :length])
        assert torch.equal(out.sequences[i, : length + LENGTH], alone.sequences[0])
        assert out.nfe[i] == alone.nfe[0]
        text = out.sequences[i, length : length + LENGTH]
        assert not (text == micro(family).mask_id).any()


@pytest.mark.parametrize(
    "family, sampler, cache", pairs(FULL_ATTENTION, ("none", "prefix", "dual"))
)
def test_rows_are_single_runs_with_full_attention(family, sampler, cache):
    skip_what_is_refused(family, sampler, cache)
    out = run(family, sampler, cache, prompts(5, 2, 9))
    assert_rows_are_single_runs(out, family, sampler, cache)


@pytest.mark.parametrize("family, sampler, cache", pairs(BLOCK_CAUSAL, ("block",)))
def test_the_committed_cache_is_exact_and_rows_are_single_runs(family, sampler, cache):
    skip_what_is_refused(family, sampler, cache)
    rows = prompts(90, 85)
    plain, kept = run(family, sampler, "none", rows), run(family, sampler, cache, rows)
    assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe
    assert_rows_are_single_runs(kept, family, sampler, cache)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SAMPLERS)))
def test_the_committed_cache_computes_at_most_a_third_of_the_positions(number):
    sampler, family = SAMPLERS[number], BLOCK_CAUSAL[number % len(BLOCK_CAUSAL)]
    if sampler in UNCACHED:
        pytest.skip("it has a forward of its own")
    how = SHAPE | options(sampler) | {"max_new_tokens": 64}
    plain, kept = (
        dlmdecode.generate(micro(family), prompts(90, 85), sampler, cache=cache, **how)
        for cache in ("none", "block")
    )
    assert 3 * kept.stats["forward_positions"] <= plain.stats["forward_positions"]
