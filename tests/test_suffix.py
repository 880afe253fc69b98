"""The suffix window: what lies further behind the open block does not exist for the model."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from test_samplers import CACHES, options
from torch import Tensor
from toy import FAMILIES, LogitsModule, micro, prompts

import dlmdecode
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.samplers.prophet_constraints import Constraints

SHAPE = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore"}


class Watched(Denoiser):
    """A model that writes down the positions it is given."""

    def __init__(self, model: Denoiser):
        self.model, self.seen = model, []
        self.mask_id, self.eos_ids, self.shift = model.mask_id, model.eos_ids, model.shift
        self.head = model.head  # type: ignore[method-assign]

    @property
    def device(self) -> torch.device:
        return self.model.device

    def encode(self, tokens: Tensor, position: Tensor, attend=None, cache=None) -> Tensor:
        self.seen.append(position[0].tolist())
        return self.model.encode(tokens, position, attend, cache)


def run(prompt, family="llada", recipe="threshold", **more):
    given = {"threshold": 0.6} if recipe == "threshold" else options(recipe)
    return dlmdecode.generate(micro(family), prompt, recipe, **(SHAPE | given | more))


def spied(prompt, family="llada", **more) -> list[list[int]]:
    """The positions of each forward."""
    model = Watched(micro(family))
    dlmdecode.generate(model, prompt, "threshold", **(SHAPE | {"threshold": 0.6} | more))
    return model.seen


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_that_reaches_the_end_changes_nothing(family, cache):
    rows = prompts(5, 2, 9)
    whole, windowed = (run(rows, family, cache=cache, suffix=width) for width in (None, 24))
    assert torch.equal(whole.sequences, windowed.sequences) and whole.nfe == windowed.nfe
    positions = [out.stats["forward_positions"] for out in (whole, windowed)]
    assert positions[0] == positions[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_suffix_0_appends_block_after_block(family):
    (prompt,) = prompts(5)
    text = prompt
    for _ in range(3):
        text = run(text, family, max_new_tokens=8).sequences[0]
    assert torch.equal(run(prompt, family, suffix=0).sequences[0], text)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_model_is_given_stands_at_its_true_positions(family):
    (prompt,) = prompts(5)
    first, *_, last = spied(prompt, family, suffix=3, suffix_tail=2)
    assert first == [*range(16), 27, 28]
    assert last == list(range(29))


@pytest.mark.parametrize("family", FAMILIES)
def test_under_a_cache_only_what_is_visible_is_computed_again(family):
    (prompt,) = prompts(5)
    shift = micro(family).shift
    prefix = spied(prompt, family, cache="prefix", suffix=3, suffix_tail=2)
    assert prefix[:2] == [[*range(16), 27, 28], [*range(5 - shift, 16), 27, 28]]
    dual = spied(prompt, family, cache="dual", suffix=3, suffix_tail=2)
    assert dual[:2] == [[*range(16), 27, 28], [*range(5 - shift, 13)]]


def test_given_text_is_seen_however_far_away_it_stands():
    (prompt,) = prompts(5)
    fixed = Sampler(openings=(Constraints(((20, 7), (22, 8))),))
    model = Watched(micro("llada"))
    out = dlmdecode.generate(model, prompt, ["threshold", fixed], suffix=1, **SHAPE)
    assert model.seen[0] == [*range(14), 25, 27]
    assert out.sequences[0, [25, 27]].tolist() == [7, 8]


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_what_a_text_costs_does_not_depend_on_the_length_of_its_canvas(cache):
    (prompt,) = prompts(5)
    forwards = spied(prompt, cache=cache, suffix=0)
    assert spied(prompt, cache=cache, suffix=0, max_new_tokens=96)[: len(forwards)] == forwards


@pytest.mark.parametrize("base, cache", [*product(["threshold"], CACHES), ("adablock", "prefix")])
@pytest.mark.parametrize("family", FAMILIES)
def test_drafts_are_lossless_with_a_window(base, family, cache):
    rows, more = prompts(6, 3, 8), {"cache": cache, "suffix": 4, "suffix_tail": 1}
    shape = {"max_new_tokens": 32, "block_length": 16}
    plain = run(rows, family, base, **more, **shape)
    drafted = dlmdecode.generate(
        micro(family), rows, f"{base}+freedave", **(SHAPE | shape | more | given(base))
    )
    assert torch.equal(plain.sequences, drafted.sequences)
    if cache != "none":
        tree = {"draft_mode": "tree"} | given(base)
        packed = dlmdecode.generate(
            micro(family), rows, f"{base}+freedave", **(SHAPE | shape | more | tree)
        )
        assert torch.equal(plain.sequences, packed.sequences) and packed.nfe == drafted.nfe


def given(base: str) -> dict:
    return {"threshold.threshold": 0.6} if base == "threshold" else options(base)


@pytest.mark.parametrize(
    "recipe, more, message",
    [
        ("threshold", {"block_length": None}, "suffix=4: one block over the whole canvas"),
        ("dream", {"block_length": None}, "suffix=4: one block over the whole canvas"),
        ("prophet", {}, "suffix=4: AnswerSettled reads proposals of the whole canvas"),
        ("wino", {}, "suffix=4: Shadowed is a forward of its own"),
        ("threshold", {"suffix": None, "suffix_tail": 1}, "suffix_tail=1: it goes with suffix"),
        ("threshold", {"length": "rho_eos"}, "length='rho_eos': .*which a suffix window hides"),
        ("threshold", {"suffix": -1}, "suffix=-1: give a whole number"),
        ("threshold", {"suffix": 10**6}, "suffix=1000000: the text has max_new_tokens="),
    ],
)
def test_a_window_without_effect_is_refused(recipe, more, message):
    with pytest.raises(ValueError, match=message):
        dlmdecode.generate(micro("llada"), prompts(3), recipe, **(SHAPE | {"suffix": 4} | more))


def test_a_block_causal_model_sees_no_suffix_to_leave_out():
    with pytest.raises(ValueError, match="suffix=0: its attention is causal between blocks"):
        dlmdecode.generate(micro("sdar"), prompts(3), suffix=0, max_new_tokens=16)


def test_a_wrapped_module_has_a_window_and_gaps_only_where_it_takes_positions():
    rows = prompts(5, 2)
    module = dlmdecode.wrap(LogitsModule(micro("llada")))
    more = SHAPE | {"threshold": 0.6}
    assert torch.equal(
        dlmdecode.generate(module, rows, "threshold", suffix=2, **more).sequences,
        run(rows, suffix=2).sequences,
    )
    with pytest.raises(ValueError, match="suffix_tail=1: its call takes no position_ids"):
        dlmdecode.generate(module, rows, "threshold", suffix=2, suffix_tail=1, **more)
