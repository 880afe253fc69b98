"""`generate`, `stream` and `wrap` from outside: arguments, EOS policy, seeds, what comes back."""

import inspect
from dataclasses import fields
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_samplers import MORE
from toy import (
    EOS,
    FAMILIES,
    MASK,
    MODELS,
    LogitsModule,
    counted_forwards,
    fond_of,
    micro,
    prompts,
    talking,
)

import dlmdecode
from dlmdecode.settings import Settings

SMALL = dict(max_new_tokens=16, block_length=8)


def tokens(model, prompt, **options):
    return dlmdecode.generate(model, prompt, **(SMALL | options)).sequences.tolist()


# arguments


BAD = {
    "an unknown sampler": ({"sampler": "profet"}, "did you mean 'prophet'"),
    "an unknown option": ({"treshold": 0.5}, "did you mean 'threshold'"),
    "an option of another sampler": ({"sampler": "vanilla", "threshold": 0.5}, "unknown option"),
    "no length": ({"max_new_tokens": 0}, "max_new_tokens=0"),
    "half a token": ({"max_new_tokens": 1.5}, "max_new_tokens=1.5"),
    "a true length": ({"max_new_tokens": True}, "max_new_tokens=True"),
    "beyond the context": ({"max_new_tokens": 508}, "addresses 512 positions; give at most 507"),
    "no block": ({"block_length": 0}, "block_length=0"),
    "a block of no whole length": ({"block_length": "8"}, "block_length='8'"),
    "a block longer than the text": ({"block_length": 17}, "block_length=17.*max_new_tokens=16"),
    "a word that is no block": ({"block_length": "aut"}, "block_length='aut'.*mean 'auto'"),
    "fewer steps than blocks": ({"sampler": "vanilla", "steps": 1}, "steps=1: give at least 2"),
    "more steps than tokens": ({"sampler": "vanilla", "steps": 17}, "steps=17.*max_new_tokens=16"),
    "steps without a schedule": ({"steps": 4}, "steps=4: threshold follows no schedule"),
    "steps of a composition": ({"sampler": "credit", "steps": 4}, "steps=4: .*no schedule"),
    "steps that Dream's blocks do not share": (
        {"sampler": "dream", "steps": 3},
        "steps=3: give a multiple of the number of blocks, 2",
    ),
    "no steps": ({"sampler": "vanilla", "steps": 0}, "steps=0"),
    "a negative temperature": ({"temperature": -1}, "temperature=-1"),
    "a temperature that is no number": ({"temperature": float("nan")}, "temperature=nan"),
    "an infinite temperature": ({"temperature": float("inf")}, "temperature=inf"),
    "a true temperature": ({"temperature": True}, "temperature=True"),
    "hardly any temperature": ({"temperature": 1e-9}, "temperature=1e-09"),
    "negative guidance": ({"cfg_scale": -1}, "cfg_scale=-1"),
    "guidance of a forward that it cannot reach": (
        {"sampler": "wino", "cfg_scale": 1.0},
        "cfg_scale=1.0: WINO judges",
    ),
    "guidance that is no number": ({"cfg_scale": float("nan")}, "cfg_scale=nan"),
    "a step function that is none": ({"on_step": 3}, "on_step=3"),
    "a trace that is neither": ({"trace": 3}, "trace=3"),
    "a streamer that is none": ({"streamer": object()}, "streamer=.*put.ids. and end"),
    "an unknown cache": ({"cache": "duel"}, "cache='duel'.*did you mean 'dual'"),
    "a true cache": ({"cache": True}, "cache=True"),
    "an unknown EOS policy": ({"eos": "halt"}, "eos='halt'"),
    "an unknown precision": ({"confidence_dtype": "float16"}, "confidence_dtype='float16'"),
    "a threshold that is no number": ({"threshold": float("nan")}, "threshold=nan"),
    "a seed that is no number": ({"seed": "x"}, "seed='x'"),
    "half a seed": ({"seed": 0.5}, "seed=0.5"),
    "a seed of more than 64 bits": ({"seed": 2**63}, "seed=9223372036854775808"),
    "two lengths": ({"gen_length": 8}, "gen_length=8: max_new_tokens=16 says otherwise"),
    "two block lengths": ({"block_size": 4}, "block_size=4: block_length=8 says otherwise"),
    "two step counts": (
        {"sampler": "vanilla", "steps": 16, "diffusion_steps": 8},
        "diffusion_steps=8: steps=16",
    ),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_a_bad_argument_is_refused_before_any_forward(options, message):
    model, prompt = micro("llada"), prompts(5)
    only_generate = {"on_step", "trace", "streamer"} & set(options)
    with counted_forwards(model) as count:
        for call in (dlmdecode.generate, dlmdecode.stream)[: 1 if only_generate else 2]:
            with pytest.raises((ValueError, TypeError), match=message):
                call(model, prompt, **(SMALL | options))
    assert count.calls == 0


HINTS = {
    "max_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "stop": "stop_strings",
    "best_of": "num_return_sequences",
    "do_sample": "temperature",
    "num_beams": "no beam search",
    "guidance_scale": "cfg_scale",
    "input_ids": "prompt",
    "temprature": "did you mean 'temperature'",
}


@pytest.mark.parametrize("name, hint", HINTS.items())
def test_an_argument_of_another_library_gets_a_hint(name, hint):
    with pytest.raises(TypeError, match=f"unknown option '{name}' .*{hint}"):
        dlmdecode.generate(micro("llada"), prompts(5), **{name: 1})


NUMBERS = {
    "numpy integers": (np.int64, np.float64),
    "small numpy types": (np.uint8, np.float32),
    "arrays of no dimension": (np.array, np.array),
    "tensors of no dimension": (torch.tensor, torch.tensor),
    "fractions": (int, Fraction),
}


@pytest.mark.parametrize("whole, real", NUMBERS.values(), ids=NUMBERS)
def test_a_number_of_any_library_is_that_number(whole, real):
    def text(whole, real, model):
        return [
            tokens(model, prompts(5), **options)
            for options in (
                dict(max_new_tokens=whole(16), block_length=whole(8), threshold=real(0.5)),
                dict(sampler="vanilla", steps=whole(4), seed=whole(3), temperature=real(0.5)),
                dict(sampler="localleap", threshold=real(0.75), relaxed=real(0.5), radius=whole(2)),
                dict(sampler="vanilla", gen_length=whole(12), max_new_tokens=whole(12)),
                dict(cfg_scale=real(1.5)),
            )
        ]

    assert text(whole, real, micro("llada")) == text(int, float, micro("llada"))


@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True), np.array(False)])
def test_a_truth_value_is_no_number(truth):
    for name in ("max_new_tokens", "block_length", "steps", "temperature", "cfg_scale", "seed"):
        with pytest.raises(ValueError, match=f"{name}=(True|False)"):
            dlmdecode.generate(micro("llada"), prompts(5), "vanilla", **{name: truth})


def test_signatures_show_every_setting_with_its_default():
    for call in (dlmdecode.generate, dlmdecode.stream):
        shown = inspect.signature(call).parameters
        for setting in fields(Settings):
            assert shown[setting.name].default == setting.default


# schedules


@pytest.mark.parametrize("sampler", dlmdecode.list_samplers())
@pytest.mark.parametrize("length", [1, 7, 16, 40])
def test_defaults_never_refuse_each_other(sampler, length):
    if sampler in ("adablock", "learn2pd"):
        pytest.skip("they need a tokenizer, and a filter beside the model")
    out = dlmdecode.generate(micro("llada"), prompts(5), sampler, max_new_tokens=length)
    assert out.sequences.shape == (1, 5 + length)
    assert sampler in MORE or out.nfe[0] <= length


@pytest.mark.parametrize(
    "length, block_length, steps, per_block",
    [
        (16, 8, 4, [2, 2]),
        (16, 8, 5, [2, 3]),
        (20, 8, 10, [4, 4, 2]),
        (17, 16, 16, [15, 1]),
        (64, "auto", 9, [4, 5]),
        (64, "auto", 1, [1]),
        (48, None, 7, [7]),
    ],
)
def test_steps_are_those_of_the_whole_text_each_block_with_its_share(
    length, block_length, steps, per_block
):
    shape = dict(max_new_tokens=length, block_length=block_length, eos="ignore")
    out = dlmdecode.generate(
        micro("llada"), prompts(5), "vanilla", steps=steps, trace=True, **shape
    )
    assert out.nfe == [sum(per_block)] == [steps]
    blocks = [int(step.lo[0]) for step in out.trace.steps]
    assert [blocks.count(lo) for lo in sorted(set(blocks))] == per_block


@pytest.mark.parametrize(
    "alias, name, value",
    [("gen_length", "max_new_tokens", 24), ("block_size", "block_length", 12)],
)
def test_an_alias_means_its_name(alias, name, value):
    prompt = prompts(5)
    other = {"block_length": 8} if name == "max_new_tokens" else {"max_new_tokens": 24}
    by_alias = dlmdecode.generate(micro("llada"), prompt, **other, **{alias: value})
    by_name = dlmdecode.generate(micro("llada"), prompt, **other, **{name: value})
    both = dlmdecode.generate(micro("llada"), prompt, **other, **{alias: value, name: value})
    assert by_alias.sequences.tolist() == by_name.sequences.tolist() == both.sequences.tolist()


def test_an_alias_says_none_as_its_name_does():
    def blocks(**how):
        steps = dlmdecode.stream(micro("llada"), prompts(5), max_new_tokens=64, **how)
        return {(int(step.lo[0]), int(step.hi[0])) for step in steps}

    assert blocks(block_size=None) == blocks(block_length=None) == {(5, 69)}
    for how in ({"block_length": 16, "block_size": None}, {"block_length": None, "block_size": 16}):
        with pytest.raises(ValueError, match="block_size=.*block_length=.* says otherwise"):
            blocks(**how)
    with pytest.raises(ValueError, match="max_new_tokens=None"):
        dlmdecode.generate(micro("llada"), prompts(5), gen_length=None)


def test_diffusion_steps_are_steps():
    out = dlmdecode.generate(
        micro("llada"), prompts(5), "vanilla", diffusion_steps=4, eos="ignore", **SMALL
    )
    assert out.nfe == [4]


@pytest.mark.parametrize("model", [3, object(), torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ValueError, match="model=.*wrap"):
        dlmdecode.generate(model, prompts(3))


def test_a_folder_is_a_model():
    prompt = prompts(5)
    assert tokens(MODELS / "llada-micro", prompt) == tokens(micro("llada"), prompt)


# what comes back


def test_sequences_hold_prompt_and_text_and_are_padded_with_eos():
    batch = prompts(5, 2)
    out = dlmdecode.generate(micro("llada"), batch, eos="ignore", **SMALL)
    assert out.sequences.shape == (2, 21)
    assert out.prompt_lengths == [5, 2]
    for row, prompt in zip(out.sequences, batch, strict=True):
        assert torch.equal(row[: len(prompt)], prompt)
    assert out.sequences[1, 18:].tolist() == [EOS] * 3
    assert MASK not in out.sequences[0].tolist() + out.sequences[1].tolist()


def test_texts_hold_the_generation_only_without_special_tokens():
    out = dlmdecode.generate(talking(), "w1 w2 w3", **SMALL)
    (text,) = out.texts
    words = [f"w{i}" if i < 310 else "" for i in out.sequences[0, 3:].tolist()]
    assert text.split() == [word for word in words if word]
    assert dlmdecode.generate(micro("llada"), prompts(3), **SMALL).texts is None


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_stats_add_up(cache):
    model = micro("llada")
    with counted_forwards(model) as count:
        out = dlmdecode.generate(model, prompts(6, 3, 4), threshold=0.4, cache=cache, **SMALL)
    stats = out.stats
    assert stats["nfe"] == count.calls
    assert stats["forward_rows"] == sum(out.nfe)
    assert stats["new_tokens"] == sum(out.new_tokens)
    assert stats["tokens_per_forward"] == sum(out.new_tokens) / sum(out.nfe)
    assert stats["tokens_per_second"] == stats["new_tokens"] / stats["seconds"]


def test_caches_process_only_the_positions_they_need():
    (prompt,), options = prompts(6), dict(SMALL, sampler="vanilla", eos="ignore")
    positions = {
        cache: dlmdecode.generate(micro("llada"), prompt, cache=cache, **options).stats[
            "forward_positions"
        ]
        for cache in ("none", "prefix", "dual")
    }
    whole, refreshes = 6 + 16, 2
    assert positions["none"] == 16 * whole
    assert positions["prefix"] == refreshes * whole + 7 * 16 + 7 * 8
    assert positions["dual"] == refreshes * whole + 14 * 8


def test_guidance_costs_one_call_of_twice_the_rows():
    out = dlmdecode.generate(
        micro("llada"), prompts(5), "vanilla", cfg_scale=1.5, eos="ignore", **SMALL
    )
    assert out.stats["nfe"] == 16
    assert out.stats["forward_rows"] == 32
    assert tokens(micro("llada"), prompts(5), cfg_scale=1.5) != tokens(micro("llada"), prompts(5))


def test_on_step_sees_every_step_and_the_last_one_is_the_result():
    seen = []
    out = dlmdecode.generate(micro("llada"), prompts(5), on_step=seen.append, **SMALL)
    assert [step.number for step in seen] == list(range(1, out.nfe[0] + 1))
    assert torch.equal(seen[-1].sequences, out.sequences)
    assert int(seen[-1].masks_left) == 0


def test_stream_yields_the_steps_that_generate_takes():
    steps = list(dlmdecode.stream(micro("llada"), prompts(5), **SMALL))
    out = dlmdecode.generate(micro("llada"), prompts(5), trace=True, **SMALL)
    assert len(steps) == len(out.trace)
    for mine, theirs in zip(steps, out.trace.steps, strict=True):
        assert torch.equal(mine.sequences, theirs.sequences)


def test_a_trace_tells_when_each_position_was_written():
    out = dlmdecode.generate(
        micro("llada"), prompts(5), "vanilla", trace=True, eos="ignore", **SMALL
    )
    order = out.trace.order()
    assert order[:5] == [0] * 5
    assert sorted(order[5:13]) == list(range(1, 9))
    assert sorted(order[13:]) == list(range(9, 17))
    assert out.trace[0].changed.sum() == 1
    assert [int(step.masks_left) for step in out.trace.steps] == list(range(15, -1, -1))
    assert dlmdecode.generate(micro("llada"), prompts(5), **SMALL).trace is None


def test_input_tensors_are_left_as_they_were():
    (prompt,) = prompts(5)
    before = prompt.clone()
    dlmdecode.generate(micro("llada"), prompt, **SMALL)
    assert torch.equal(prompt, before)


# end of sequence


@pytest.mark.parametrize("sampler", ["vanilla", "threshold", "dream", "prophet"])
@settings(max_examples=12, deadline=None)
@given(fondness=st.floats(0, 8), seed=st.integers(0, 50))
def test_stopping_at_eos_never_changes_the_tokens_before_it(sampler, fondness, seed):
    model, (prompt,) = fond_of(micro("llada"), EOS, fondness), prompts(4, seed=seed)
    options = dict(SMALL, sampler=sampler)
    stopped = dlmdecode.generate(model, prompt, eos="stop", **options)
    whole = dlmdecode.generate(model, prompt, eos="ignore", **options)
    row, full = stopped.sequences[0, 4:].tolist(), whole.sequences[0, 4:].tolist()
    end = row.index(EOS) if EOS in row else len(row)
    assert row[:end] == full[:end]
    assert row[end:] == [EOS] * (len(row) - end)
    assert stopped.new_tokens == [end]
    assert stopped.nfe[0] <= whole.nfe[0]


def test_stopping_at_eos_saves_forwards():
    model, prompt = fond_of(micro("llada"), EOS, 6.0), prompts(4)
    options = dict(SMALL, sampler="vanilla", max_new_tokens=32)
    stopped = dlmdecode.generate(model, prompt, eos="stop", **options)
    whole = dlmdecode.generate(model, prompt, eos="ignore", **options)
    assert whole.nfe == [32]
    assert stopped.nfe[0] < 32


def test_every_eos_id_ends_a_text_and_the_first_fills_the_rest():
    model = fond_of(micro("llada"), 7, 30.0)
    wrapped = dlmdecode.wrap(LogitsModule(model), mask_id=MASK, eos_ids=(EOS, 7))
    out = dlmdecode.generate(wrapped, prompts(4), **SMALL)
    assert out.sequences[0, 4:].tolist() == [7] + [EOS] * 15
    assert out.new_tokens == [0]


# seeds


@pytest.mark.parametrize("sampler", ["threshold", "vanilla", "dream"])
def test_a_seed_fixes_the_text_and_another_seed_changes_it(sampler):
    prompt, options = prompts(5), dict(sampler=sampler, temperature=1.0, max_new_tokens=32)
    first = tokens(micro("llada"), prompt, seed=1, **options)
    assert tokens(micro("llada"), prompt, seed=1, **options) == first
    assert tokens(micro("llada"), prompt, seed=2, **options) != first


def test_no_seed_is_seed_zero_whatever_torch_was_seeded_with():
    prompt = prompts(5)
    torch.manual_seed(1)
    first = tokens(micro("llada"), prompt, temperature=1.0)
    torch.manual_seed(2)
    assert tokens(micro("llada"), prompt, temperature=1.0) == first
    assert tokens(micro("llada"), prompt, temperature=1.0, seed=0) == first


def test_decoding_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    tokens(micro("llada"), prompts(5), temperature=1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_prompts_of_a_batch_get_different_samples():
    (prompt,) = prompts(5)
    first, second = tokens(micro("llada"), [prompt, prompt], temperature=1.5, max_new_tokens=32)
    assert first != second


def test_without_temperature_the_seed_does_not_matter():
    prompt = prompts(5)
    assert tokens(micro("llada"), prompt, seed=1) == tokens(micro("llada"), prompt, seed=2)


def test_random_order_follows_the_seed_at_temperature_zero():
    prompt, options = prompts(5), dict(sampler="vanilla", remasking="random", max_new_tokens=32)
    first = tokens(micro("llada"), prompt, seed=1, **options)
    assert tokens(micro("llada"), prompt, seed=1, **options) == first
    assert tokens(micro("llada"), prompt, seed=2, **options) != first


# foreign modules


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", ["vanilla", "threshold", "dream", "prophet"])
def test_a_wrapped_module_decodes_as_the_native_model_does(family, sampler):
    model = micro(family)
    wrapped = dlmdecode.wrap(
        LogitsModule(model), mask_id=MASK, eos_ids=EOS, shift=bool(model.shift)
    )
    batch = prompts(6, 3)
    assert tokens(wrapped, batch, sampler=sampler) == tokens(model, batch, sampler=sampler)


def test_a_module_that_returns_a_tensor_is_enough():
    class Bare(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None):
            return micro("llada")(input_ids, attention_mask)

    wrapped = dlmdecode.wrap(Bare(), mask_id=MASK, eos_ids=[EOS])
    assert tokens(wrapped, prompts(4)) == tokens(micro("llada"), prompts(4))


def test_a_bare_module_whose_config_names_its_ids_needs_no_wrap():
    assert tokens(LogitsModule(micro("llada")), prompts(4)) == tokens(micro("llada"), prompts(4))


def test_wrap_asks_for_the_ids_that_the_module_does_not_name():
    module = LogitsModule(micro("llada"), named=False)
    with pytest.raises(ValueError, match="mask_id=None"):
        dlmdecode.wrap(module)
    with pytest.raises(ValueError, match="eos_ids=None"):
        dlmdecode.wrap(module, mask_id=MASK)
    with pytest.raises(ValueError, match="other than the mask"):
        dlmdecode.wrap(module, mask_id=MASK, eos_ids=MASK)
    module.config = SimpleNamespace(mask_token_id=MASK, eos_token_id=[EOS, 7])
    assert dlmdecode.wrap(module).eos_ids == (EOS, 7)


def test_wrap_puts_the_module_into_eval_mode():
    module = LogitsModule(micro("llada")).train()
    dlmdecode.wrap(module)
    assert not module.training


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_for_a_module_without_one_is_refused(cache):
    with pytest.raises(ValueError, match=f"cache='{cache}'.*wrapped module"):
        dlmdecode.generate(dlmdecode.wrap(LogitsModule(micro("llada"))), prompts(3), cache=cache)


def test_the_help_of_generate_has_a_line_on_each_setting():
    for setting in fields(Settings):
        assert f"\n        {setting.name}: " in dlmdecode.generate.__doc__
    assert "{settings}" not in dlmdecode.generate.__doc__
