"""Windows that slide with every step, and the caches that follow them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy import EOS, FAMILIES, MASK, micro, prompts

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.parts.blocks import MaskWindow
from dlmdecode.samplers.dsb import SlidingBlock

SHAPE = {"max_new_tokens": 32, "block_length": 8, "threshold": 0.6, "eos": "ignore"}
CACHES = (
    "dsb,refresh={}",
    "dcd,refresh={}",
    "dcd,refresh={},delay=none",
    "dcd,refresh={},kept=prefix",
)


def window(blocks, tokens: str) -> tuple[int, int]:
    """`[lo, hi)` of a text of letters and of `.` where it is masked, two tokens of prompt first."""
    canvas = Canvas.of([torch.tensor([1, 2])], len(tokens), MASK, (EOS,))
    text = torch.tensor([MASK if one == "." else ord(one) for one in tokens])
    canvas.tokens[0, 2:] = text
    canvas.slide(blocks)
    return int(canvas.lo) - 2, int(canvas.hi) - 2


def test_a_sliding_block_begins_at_the_first_mask_and_ends_with_the_number_of_tokens():
    assert window(SlidingBlock(4), "..........") == (0, 4)
    assert window(SlidingBlock(4), "ab.c......") == (2, 7)
    assert window(SlidingBlock(4), ".abc......") == (0, 7)
    assert window(SlidingBlock(4, 4), ".abc......") == (0, 4)
    assert window(SlidingBlock(4), "abcdefgh..") == (8, 10)


def test_a_mask_window_holds_so_many_masks_and_is_not_longer_than_it_may_be():
    assert window(MaskWindow(3, 9), "..........") == (0, 3)
    assert window(MaskWindow(3, 9), "a.b.c.....") == (1, 6)
    assert window(MaskWindow(3, 4), "a.bcd.....") == (1, 5)
    assert window(MaskWindow(3, 9), "abcdefgh.j") == (8, 10)


@pytest.mark.parametrize("sampler", ["dsb", "dcd"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_that_is_refreshed_with_every_token_is_none(family, sampler):
    rows = prompts(6, 3)
    whole, *cached = (
        dlmdecode.generate(micro(family), rows, sampler, cache=cache, **SHAPE)
        for cache in ("none", "dsb,refresh=1", "dcd,refresh=1")
    )
    for out in cached:
        assert torch.equal(whole.sequences, out.sequences) and whole.nfe == out.nfe


@pytest.mark.parametrize("suffix", [None, 3])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_batch_equals_its_single_run_and_costs_less_than_whole_canvases(
    family, cache, suffix
):
    rows, more = prompts(6, 3, 17), SHAPE | {"cache": cache.format(8), "suffix": suffix}
    batch = dlmdecode.generate(micro(family), rows, "dsb", **more)
    for i, prompt in enumerate(rows):
        alone = dlmdecode.generate(micro(family), prompt, "dsb", **more)
        assert torch.equal(batch.sequences[i, : len(prompt) + 32], alone.sequences[0])
        assert batch.nfe[i] == alone.nfe[0]
        assert alone.stats["forward_positions"] < alone.nfe[0] * (len(prompt) + 32)


def given(cache: str, sampler: str = "dsb", **more) -> None:
    dlmdecode.generate(micro("llada"), prompts(3), sampler, cache=cache, **(SHAPE | more))


def test_what_does_not_go_together_is_refused_with_the_reason():
    for cache in ("prefix", "dual"):
        with pytest.raises(ValueError, match=f"cache='{cache}': the sampler's window slides"):
            given(cache)
    with pytest.raises(ValueError, match="cache='dsb': it follows a window that slides"):
        given("dsb", "threshold")
    with pytest.raises(ValueError, match="steps=8: .*has no share of the steps"):
        dlmdecode.generate(micro("llada"), prompts(3), "dsb+vanilla", steps=8, max_new_tokens=16)
    with pytest.raises(ValueError, match="prefix_window=-1"):
        given("dsb,prefix_window=-1")
    with pytest.raises(ValueError, match="kept='all': give one of"):
        given("dcd,kept=all")


def test_a_block_causal_model_has_its_exact_cache_under_a_window_that_slides():
    rows: list[Tensor] = prompts(6, 3)
    options = {"max_new_tokens": 16, "threshold": 0.6, "eos": "ignore"}
    plain, cached = (
        dlmdecode.generate(micro("sdar"), rows, "dsb", cache=cache, **options)
        for cache in ("none", "block")
    )
    assert torch.equal(plain.sequences, cached.sequences)
