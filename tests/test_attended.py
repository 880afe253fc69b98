"""Caches that go by what a forward looks at, against plain references of their rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy import FAMILIES, micro, prompts

import dlmdecode
from dlmdecode.caches.d2 import bridged
from dlmdecode.caches.rollout import Rollout
from dlmdecode.decoding.positions import Scattered
from dlmdecode.models.protocol import Watch

LENGTH, BLOCK = 16, 8


class Plain(Watch):
    """Keeps keys and values in full, and adds up what `window` looks at, one by one."""

    def __init__(self, num_keys: int, window: list[int]):
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.query, self.window, self.num_keys = list(range(num_keys)), window, num_keys
        self.mass = [0.0] * num_keys

    def __call__(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.kept:
            self.kept[layer] = keys.clone(), values.clone()
        for old, new in zip(self.kept[layer], (keys, values), strict=True):
            old[:, :, self.query] = new
        return self.kept[layer]

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        group = queries.shape[1] // keys.shape[1]
        for position in self.window:
            for head in range(queries.shape[1]):
                q = queries[0, head, self.query.index(position)]
                looks = (keys[0, head // group] @ q / len(q) ** 0.5).softmax(0).tolist()
                self.mass = [a + b for a, b in zip(self.mass, looks, strict=True)]


def plain_flash(family: str, prompt: Tensor, decoded: int, ahead: int) -> tuple[list[int], int]:
    """The text of one row, a token a step, and how many positions were computed."""
    model, start = micro(family), len(prompt)
    tokens = [*prompt.tolist(), *[model.mask_id] * LENGTH]
    num, positions, fresh = len(tokens), 0, -1
    cache = Plain(num, [])
    for lo in range(start, num, BLOCK):
        while masks := [i for i in range(lo, lo + BLOCK) if tokens[i] == model.mask_id]:
            speak = [max(i - model.shift, 0) for i in masks]
            behind = [i for i in range(lo + BLOCK, num) if tokens[i] == model.mask_id][:ahead]
            written = [i for i in range(start, num) if tokens[i] != model.mask_id and i != fresh]
            most = sorted(written, key=lambda i: (-cache.mass[i], i))[:decoded]
            if positions:
                cache.query = sorted({*speak, *(i - model.shift for i in behind), *most, fresh})
            cache.window, cache.mass = sorted(set(speak)), [0.0] * num
            at = torch.tensor([cache.query])
            hidden = model.encode(torch.tensor([tokens])[:, cache.query], at, None, cache)
            positions += len(cache.query)
            logits = model.head(hidden[0, [cache.query.index(i) for i in speak]])
            best = logits.softmax(-1).max(-1)
            first = int(best.values.argmax())
            fresh = masks[first]
            tokens[fresh] = int(best.indices[first])
    return tokens, positions


@torch.inference_mode()
@pytest.mark.parametrize("decoded, ahead", [(0, 0), (3, 2), (64, 64)])
@pytest.mark.parametrize("family", FAMILIES)
def test_flash_computes_what_its_rule_says(family, decoded, ahead):
    for prompt in prompts(5, 9):
        out = dlmdecode.generate(
            micro(family),
            prompt,
            "vanilla",
            max_new_tokens=LENGTH,
            block_length=BLOCK,
            eos="ignore",
            cache=f"flash,decoded={decoded},ahead={ahead}",
        )
        tokens, positions = plain_flash(family, prompt, decoded, ahead)
        assert out.sequences[0].tolist() == tokens
        assert out.stats["forward_positions"] == positions


def test_the_rollout_is_the_product_of_the_layers_of_which_half_is_each_ones_own():
    torch.manual_seed(0)
    where = torch.rand(2, 7) < 0.6
    query = Scattered(where)
    rollout = Rollout(lambda layer, k, v: (k, v), query)
    whole = torch.eye(7).repeat(2, 1, 1)
    for layer in range(3):
        queries, keys = torch.randn(2, 4, query.width, 8), torch.randn(2, 2, 7, 8)
        index = query.at[:, None, :, None]
        every = torch.zeros(2, 4, 7, 8).scatter(2, index.expand_as(queries), queries)
        queries = every.gather(2, index.expand_as(queries))
        rollout.see(layer, queries, keys, None)
        looks = (every @ keys.repeat_interleave(2, 1).mT / 8**0.5).softmax(-1).mean(1)
        looks = torch.where(where[..., None], looks, torch.eye(7))
        whole = (looks + torch.eye(7)) / 2 @ whole
    assert torch.allclose(rollout.mass(), whole.sum(1), atol=1e-5)


def test_gaps_between_two_positions_are_filled_where_they_are_small():
    where = torch.tensor([[1, 0, 0, 1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0, 0, 0, 0]]).bool()
    for gap in range(6):
        expected = where.clone()
        for row, line in zip(expected, where.tolist(), strict=True):
            chosen = [i for i, one in enumerate(line) if one]
            for a, b in zip(chosen, chosen[1:], strict=False):
                row[a : b + 1] |= b - a <= gap
        assert torch.equal(bridged(where, gap), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_of_more_masks_than_are_computed_is_written_from_proposals_of_its_own(family):
    """`masks=1` computes few, so that others keep the proposal from when their block was opened."""
    model = micro(family)
    text = {"max_new_tokens": LENGTH, "block_length": BLOCK, "eos": "ignore"}
    out = dlmdecode.generate(model, prompts(5, 2), "vanilla", cache="d2,masks=1", steps=4, **text)
    assert not (out.sequences == model.mask_id).any()
    whole = dlmdecode.generate(
        model, prompts(5, 2), "vanilla", cache="d2,masks=99,nucleus=1", **text
    )
    none = dlmdecode.generate(model, prompts(5, 2), "vanilla", cache="none", **text)
    assert whole.stats["forward_positions"] == none.stats["forward_positions"]
    assert torch.equal(whole.sequences, none.sequences)
