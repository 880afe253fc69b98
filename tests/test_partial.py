"""Caches that choose at every step which positions are computed anew."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_samplers import CHOOSING
from toy import FAMILIES, micro, prompts

import dlmdecode

LENGTH = 24
SHAPE = {"max_new_tokens": LENGTH, "block_length": 8, "eos": "ignore"}


def run(family: str, rows: Any, cache: str, sampler: str = "vanilla", **more: Any) -> Any:
    return dlmdecode.generate(micro(family), rows, sampler, cache=cache, **(SHAPE | more))


@pytest.mark.parametrize("cache", ["dkv,refresh=1", "dllm,prompt_refresh=1,text_refresh=1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_that_is_refreshed_with_every_forward_is_none(family, cache):
    whole, kept = (run(family, prompts(6, 3), cache) for cache in ("none", cache))
    assert torch.equal(whole.sequences, kept.sequences) and whole.nfe == kept.nfe
    assert whole.stats["forward_positions"] == kept.stats["forward_positions"]


@pytest.mark.parametrize(
    "sampler, suffix", [("vanilla", 3), ("threshold", None), ("saber", None), ("freedave", 3)]
)
@pytest.mark.parametrize("cache", CHOOSING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_batch_equals_its_single_run(family, cache, sampler, suffix):
    rows = prompts(6, 3, 17)
    batch = run(family, rows, cache, sampler, suffix=suffix)
    for i, prompt in enumerate(rows):
        alone = run(family, prompt, cache, sampler, suffix=suffix)
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])
        assert batch.nfe[i] == alone.nfe[0]
    assert not (batch.sequences == micro(family).mask_id).any()


@pytest.mark.parametrize("cache", CHOOSING)
@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_positions_are_computed_than_without(family, cache):
    whole, kept = (run(family, prompts(9, 5), cache) for cache in ("none", cache))
    assert kept.stats["forward_positions"] < 0.8 * whole.stats["forward_positions"]


@pytest.mark.parametrize("cache", CHOOSING)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_come_late_and_lengthen_the_canvas_equal_their_single_runs(family, cache):
    engine = dlmdecode.Engine(micro(family), "vanilla", batch_size=2, cache=cache, **SHAPE)
    batch, requests = prompts(4, 9, 2, 15), []
    for prompt in batch:
        requests.append(engine.submit(prompt))
        for _ in range(5):
            engine.step()
    while not all(request.done() for request in requests):
        engine.step()
    for prompt, request in zip(batch, requests, strict=True):
        alone = run(family, prompt, cache)
        assert request.result().sequences.tolist() == alone.sequences.tolist()


@pytest.mark.parametrize("cache", ["d2", "flash"])
def test_a_cache_that_goes_by_what_it_computed_is_refused_with_guidance(cache):
    with pytest.raises(ValueError, match=f"cache='{cache}': it would compute other positions"):
        run("llada", prompts(3), cache, cfg_scale=0.5)


@pytest.mark.parametrize("cache", CHOOSING[:3])
def test_guidance_keeps_its_two_halves_apart(cache):
    rows = prompts(6, 3)
    batch = run("llada", rows, cache, cfg_scale=0.5)
    for i, prompt in enumerate(rows):
        alone = run("llada", prompt, cache, cfg_scale=0.5)
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])


@pytest.mark.parametrize("cache", CHOOSING)
def test_a_block_causal_model_is_refused_with_the_reason(cache):
    name = cache.split(",")[0]
    with pytest.raises(ValueError, match=f"cache='{name}': it approximates full attention"):
        run("sdar", prompts(3), cache)


@pytest.mark.parametrize(
    "cache, message",
    [
        ("dkv,refresh=0", "refresh=0"),
        ("dkv,kept=all", "kept='all'"),
        ("dllm,ratio=2", "ratio=2"),
        ("sparse,kernel=2", "kernel=2"),
        ("d2,masks=0", "masks=0"),
        ("d2,nucleus=2", "nucleus=2"),
        ("flash,decoded=-1", "decoded=-1"),
    ],
)
def test_an_option_out_of_range_is_refused(cache, message):
    with pytest.raises(ValueError, match=message):
        run("llada", prompts(3), cache)


@pytest.mark.parametrize("most", [2**31 - 1, 2**53 - 1])
def test_a_kernel_wider_than_the_text_is_as_good_as_the_widest(most):
    widest, wider = (run("llada", prompts(6, 3), f"sparse,kernel={k}") for k in (99, most))
    assert torch.equal(widest.sequences, wider.sequences)


def test_dllm_does_not_go_through_layers_that_have_a_forward_of_their_own():
    model = copy.deepcopy(micro("llada"))

    class Halved(type(model.blocks[0])):
        def forward(self, x, *more):
            return super().forward(x, *more) / 2

    model.blocks[0].__class__ = Halved
    with pytest.raises(ValueError, match="cache='dllm': its layers have a forward of their own"):
        dlmdecode.generate(model, prompts(3), cache="dllm", **SHAPE)
