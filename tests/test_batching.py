"""A row of a ragged batch is its single run: same tokens, same forwards, whatever is beside it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, FAMILIES, FULL_ATTENTION, fond_of, micro, prompts

import dlmdecode

SAMPLERS = {
    "vanilla": dict(sampler="vanilla"),
    "vanilla, several a step": dict(sampler="vanilla", steps=9),
    "vanilla, random order": dict(sampler="vanilla", remasking="random"),
    "threshold": dict(sampler="threshold", threshold=0.5),
    "dream": dict(sampler="dream", steps=9),
    "dream, origin": dict(sampler="dream", alg="origin", steps=9),
    "dream, jitter": dict(sampler="dream", alg_temp=0.4),
    "prophet": dict(sampler="prophet", early=4.0, mid=3.0, late=2.0),
    "prophet, answer": dict(sampler="prophet", answer_start=4, early=4.0, mid=3.0, late=2.0),
    "prophet over threshold": dict(sampler="prophet+threshold", early=4.0, threshold=0.7),
}
SIZE = dict(max_new_tokens=24, block_length=8)


def assert_rows_equal_single_runs(model, batch, **options):
    together = dlmdecode.generate(model, batch, **options)
    for index, prompt in enumerate(batch):
        alone = dlmdecode.generate(model, prompt, **options)
        width = alone.sequences.shape[1]
        assert together.sequences[index, :width].tolist() == alone.sequences[0].tolist()
        assert together.nfe[index] == alone.nfe[0]
        assert together.new_tokens[index] == alone.new_tokens[0]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_of_a_ragged_batch_equals_its_single_run(family, name, temperature):
    options = SAMPLERS[name] | SIZE
    assert_rows_equal_single_runs(
        micro(family), prompts(3, 17, 8), temperature=temperature, seed=5, **options
    )


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("name", ["vanilla", "threshold", "prophet"])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_is_under_caches(family, name, cache):
    options = SAMPLERS[name] | SIZE
    assert_rows_equal_single_runs(micro(family), prompts(3, 17, 8), cache=cache, **options)


@pytest.mark.parametrize("suffix, tail", [(0, 0), (5, 1)])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_is_with_a_suffix_window(family, cache, suffix, tail):
    options = SAMPLERS["threshold"] | SIZE | {"suffix": suffix, "suffix_tail": tail}
    model = fond_of(micro(family), EOS, 4.0)
    assert_rows_equal_single_runs(model, prompts(3, 17, 8), cache=cache, **options)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("family", FULL_ATTENTION[2:])
def test_so_it_is_for_the_other_families(family, cache):
    options = SAMPLERS["threshold"] | SIZE
    rows = [ids.clamp(min=6) for ids in prompts(3, 17, 8)]  # iLLaDA's special ids lie below
    assert_rows_equal_single_runs(micro(family), rows, cache=cache, **options)


@pytest.mark.parametrize("name", ["vanilla", "threshold"])
def test_so_it_is_with_guidance(name):
    options = SAMPLERS[name] | SIZE
    assert_rows_equal_single_runs(micro("llada"), prompts(3, 9), cfg_scale=0.8, **options)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_so_it_is_where_rows_end_early(cache):
    model = fond_of(micro("llada"), EOS, 5.0)
    options = SAMPLERS["threshold"] | SIZE | {"cache": cache}
    assert_rows_equal_single_runs(model, prompts(3, 17, 8, 5), **options)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    name=st.sampled_from(sorted(SAMPLERS)),
    family=st.sampled_from(FAMILIES),
    fondness=st.sampled_from([0.0, 4.0]),
    seed=st.integers(0, 99),
)
def test_so_it_is_for_any_lengths(lengths, name, family, fondness, seed):
    model, options = fond_of(micro(family), EOS, fondness), SAMPLERS[name] | SIZE
    assert_rows_equal_single_runs(model, prompts(*lengths, seed=seed), seed=seed, **options)


def test_what_a_row_is_padded_with_does_not_matter():
    short, long, longer = prompts(3, 12, 40)
    beside = [
        dlmdecode.generate(micro("llada"), [short, other], **SIZE).sequences[0, :27].tolist()
        for other in (long, longer)
    ]
    assert beside[0] == beside[1]
