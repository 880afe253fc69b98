"""The contract of every registered sampler, under every cache, alone and composed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from toy import EOS, MASK, counted_forwards, micro, prompts

import dlmdecode
from dlmdecode.caches import cache_policy
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import choose, denoise
from dlmdecode.decoding.positions import Span
from dlmdecode.samplers.dawn_graph import EDGES, PROB
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter

LENGTH, BLOCK = 16, 8
GOLDEN = Path(__file__).parent / "golden"
DELIMITERS = {"delimiters": (194, 84, 191, 34, 208), "delimiter_threshold": 0.1}


def learned() -> AcceptanceFilter:
    torch.manual_seed(3)
    return AcceptanceFilter(BLOCK, 4)


OPTIONS = {
    "adablock": DELIMITERS,
    "learn2pd": {"filter": learned(), "threshold": 0.5},
    "pc_sampler": {"frequencies": str(GOLDEN / "aux" / "pc-corpus.json")},
    "core": {"every": 1, "candidates": 4, "tail": 0, "floor": 0.0},
    "klass": {"threshold": 0.4, "kl_threshold": 1.0},
    "threshold": {"threshold": 0.6},
    "edit": {"editing_threshold": 0.2, "max_post_steps": 3},
    "wino": {"threshold": 0.4, "threshold_back": 0.5},
    "flash_verify": {"gamma": 0.02},
    "acfg": {"ratio": 0.5},
    "t2m": {"remask_threshold": 0.2, "max_post_steps": 2},
    "polestar": {"threshold": 0.4, "early": 0.02},
}
COMPOSITIONS = [
    "adablock+credit+localleap+prophet+freedave",
    "adablock+freedave",
    "freedave+threshold",
    "freedave+localleap",
    "eoser+freedave",
    "credit+frechet",
    "prophet+factor",
    "adablock+hierarchy",
    "dsb+credit+localleap",
    "dcd+vanilla",
    "certainty+threshold",
]
RECIPES = [*dlmdecode.list_samplers(), *COMPOSITIONS]
MORE = {  # forwards that commit nothing, at most
    "acfg": LENGTH,
    "t2m": 2 * 2 * (1 + BLOCK),
    "core": LENGTH,
    "edit": 2 * 3,
    "flash_verify": LENGTH,
    "info_gain": LENGTH // BLOCK,
}
CACHES = ("none", "prefix", "dual")
CHOOSING = (  # each recipe has one of them, in turn
    "dkv,refresh=3",
    "dllm,prompt_refresh=4,text_refresh=3",
    "sparse,kernel=1",
    "d2,masks=5,gap=2",
    "flash,decoded=2,ahead=3",
)
SLIDING = ("none", "dsb,refresh=5,prefix_window=2", "dcd,refresh=5")  # where the window slides
SHAPE = {"max_new_tokens": LENGTH, "block_length": BLOCK, "eos": "ignore"}
UNGUIDED = {"acfg", "dawn", "polestar", "wino"}  # they judge by a forward of their own
UNCACHED = {*UNGUIDED, "flash_verify"}  # they read positions that a cache does not recompute
UNSHIFTED = {"flash_verify", "wino"}  # and where logits are shifted, what they ask for is elsewhere


def caches_of(recipe: str) -> tuple[str, ...]:
    """Those that a recipe can have."""
    slides = {"dsb", "dcd"} & set(recipe.split("+"))
    return ("none",) if recipe in UNCACHED else SLIDING if slides else CACHES


CHOSEN = [
    (recipe, CHOOSING[i % len(CHOOSING)])
    for i, recipe in enumerate(RECIPES)
    if recipe not in UNCACHED
    and not (CHOOSING[i % len(CHOOSING)].startswith("sparse") and "dual" not in caches_of(recipe))
]
CACHED = [(recipe, cache) for recipe in RECIPES for cache in caches_of(recipe)] + CHOSEN
WINDOWED = [  # each with one of its caches, in turn
    (name, caches_of(name)[i % len(caches_of(name))]) for i, name in enumerate(RECIPES)
]


def options(recipe: str) -> dict:
    names = recipe.split("+")
    return {f"{name}.{k}": v for name in names for k, v in OPTIONS.get(name, {}).items()}


def run(recipe: str, prompt, family: str = "llada", cache: str = "none", **more):
    return dlmdecode.generate(
        micro(family), prompt, recipe, cache=cache, **(SHAPE | options(recipe) | more)
    )


@pytest.mark.parametrize("recipe, cache", CACHED)
def test_each_row_of_a_ragged_batch_equals_its_single_run(recipe, cache):
    rows = prompts(5, 2, 9)
    batch = run(recipe, rows, cache=cache)
    for i, prompt in enumerate(rows):
        alone = run(recipe, prompt, cache=cache)
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])
        assert torch.equal(batch.sequences[i, : len(prompt)], prompt)
        assert batch.nfe[i] == alone.nfe[0] <= LENGTH + MORE.get(recipe, 0)
    assert MASK not in batch.sequences.tolist()[0]
    assert not (batch.sequences == MASK).any()


@pytest.mark.parametrize("recipe, cache", WINDOWED)
def test_so_it_is_with_a_suffix_window_or_that_is_refused(recipe, cache):
    rows, window = prompts(5, 2, 9), {"cache": cache, "suffix": 3, "suffix_tail": 1}
    try:
        batch = run(recipe, rows, **window)
    except ValueError as error:
        assert str(error).startswith("suffix=3: ")
        return
    for i, prompt in enumerate(rows):
        alone = run(recipe, prompt, **window)
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])
        assert batch.nfe[i] == alone.nfe[0] <= LENGTH + MORE.get(recipe, 0)


@pytest.mark.parametrize("recipe", ["threshold", "dream", "adablock+freedave", "klass", "credit"])
@pytest.mark.parametrize("cache", CACHES)
def test_shifted_logits_decode_the_same_in_batches(recipe, cache):
    rows = prompts(4, 7)
    batch = run(recipe, rows, "dream", cache)
    for i, prompt in enumerate(rows):
        alone = run(recipe, prompt, "dream", cache)
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])


@pytest.mark.parametrize("base", ["vanilla", "threshold", "localleap", "adablock", "factor"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_freedave_writes_the_text_of_the_rule_it_drafts_for_in_fewer_forwards(base, cache, family):
    rows = prompts(6, 3, 8)
    plain = run(base, rows, family, cache, max_new_tokens=32, block_length=16)
    ahead = run(f"{base}+freedave", rows, family, cache, max_new_tokens=32, block_length=16)
    assert torch.equal(plain.sequences, ahead.sequences)
    assert sum(ahead.nfe) < sum(plain.nfe)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_packed_drafts_equal_drafts_in_rows(cache, family):
    rows = prompts(6, 3, 8)
    for more in ({}, {"threshold": 0.7}):
        in_rows = run("freedave", rows, family, cache, **more)
        packed = run("freedave", rows, family, cache, draft_mode="tree", **more)
        assert torch.equal(in_rows.sequences, packed.sequences)
        assert in_rows.nfe == packed.nfe
        assert packed.stats["forward_rows"] < in_rows.stats["forward_rows"]


def test_packed_drafts_without_a_cache_are_refused():
    with pytest.raises(ValueError, match="draft_mode.*cache"):
        run("freedave", prompts(3), draft_mode="tree")


def test_a_cached_forward_processes_only_the_positions_it_needs():
    prompt = prompts(20)[0]
    positions = {
        cache: run("vanilla", prompt, cache=cache).stats["forward_positions"] for cache in CACHES
    }
    whole = 20 + LENGTH
    assert positions["none"] == LENGTH * whole
    assert positions["prefix"] == 2 * whole + 7 * LENGTH + 7 * BLOCK
    assert positions["dual"] == 2 * whole + 14 * BLOCK


def test_a_cache_that_refreshes_at_every_step_is_no_cache():
    model, prompt = micro("llada"), prompts(5)
    recipe = dlmdecode.sampler("threshold", threshold=0.6, block_length=1)
    texts = []
    for cache in CACHES:
        canvas = Canvas.of(prompt, LENGTH, MASK, (EOS,))
        *_, last = denoise(cache_policy(model, cache), canvas, recipe)
        texts.append(last.tokens)
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0], texts[2])


@pytest.mark.parametrize(
    "recipe, why",
    [
        ("threshold+factor", "select"),
        ("klass+freedave", "forwards"),
        ("ccd+freedave", "steps"),
        ("wino+freedave", "stays"),
        ("wino+credit", "credits"),
        ("edit+freedave", "stays"),
        ("edit+credit", "credits"),
        ("ccd+credit", "twice"),
        ("learn2pd+credit", "confidences"),
        ("dsb+freedave", "slides with every commit"),
        ("dsb+lopa", "slides with every commit"),
        ("dsb+info_gain", "slides with every commit"),
        ("dcd+slowfast", "slides leaves it"),
        ("dcd+streaming", "does not fill"),
        ("dsb+dcd", "blocks"),
        ("learn2pd+adablock", "one length"),
        ("saber+freedave", "stays"),
        ("t2m+freedave", "stays"),
        ("polestar+freedave", "skip"),
        ("polestar+dawn", "select"),
        ("flash_verify+freedave", "verify|slides"),
        ("flash_verify+dsb", "blocks"),
        ("flash_verify+klass", "only looks at drafts"),
        ("flash_verify+credit", "only looks at drafts"),
        ("flash_verify+prophet", "only looks at drafts"),
        ("flash_verify+edit", "stays"),
        ("dsb+polestar", "one block"),
        ("saber+lopa", "stays"),
        ("slowfast+freedave", "skip"),
        ("saber+info_gain", "select"),
        ("pc_sampler+threshold", "no probability"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(recipe, why):
    with pytest.raises(ValueError, match=why):
        dlmdecode.sampler(recipe, **options(recipe))


def test_a_temperature_is_refused_where_drafts_are_verified():
    with pytest.raises(ValueError, match="temperature"):
        run("freedave", prompts(3), temperature=0.5)


BAD_OPTIONS = {
    "flash_verify": [
        {"gamma": 0},
        {"gamma": 2},
        {"drafts": 0},
        {"rule": "some"},
        {"block_length": None},
    ],
    "acfg": [{"scale": 0}, {"scale": -1}, {"ratio": 0}, {"ratio": 2}],
    "polestar": [{"threshold": 2}, {"early": 0.95}, {"early": -1}],
    "t2m": [{"detect": "doubt"}, {"remask_threshold": 2}, {"max_post_steps": -1}],
    "core": [
        {"every": 0},
        {"candidates": 0},
        {"most": 0},
        {"floor": 2},
        {"tail": -1},
        {"joint": 1},
    ],
    "dawn": [{"threshold": 2}, {"induced": -1}, {"low": 2}, {"edge": 2}, {"first_layer": 3}],
    "lopa": [{"branches": 0}, {"weight": 2}, {"worst": 0}],
    "sched": [{"low": -1}, {"high": 1}, {"schedule": "steep"}, {"rate": 2.0}],
    "slowfast": [{"threshold": 2}, {"explore": 0}, {"reach": -1}, {"window": 1}, {"deviation": -1}],
    "info_gain": [{"candidates": 0}, {"threshold": 2}, {"objective": "loss"}, {"spread": -1}],
    "saber": [{"block_length": 0}],
    "certainty": [{"sigma": 0}, {"sigma": -1}, {"sigma": "wide"}],
    "pc_sampler": [
        {"decay": -1},
        {"clip": 5, "frequencies": None},
        {"frequencies": "nowhere.json"},
        {"frequencies": 3},
    ],
    "threshold": [
        {"threshold": 7},
        {"threshold": -0.1},
        {"threshold": "high"},
        {"threshold": True},
    ],
    "vanilla": [{"remasking": "rnadom"}, {"logits_eos_inf": 1}, {"confidence_eos_eot_inf": "no"}],
    "dream": [
        {"alg": "entropie"},
        {"eps": 0},
        {"alg_temp": -1},
        {"alg": "origin", "alg_temp": 0.5},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"top_k": 2.5},
    ],
    "factor": [{"factor": -1}, {"factor": math.inf}],
    "frechet": [{"delta": 7}, {"delta": -2}],
    "entropy_bound": [{"gamma": -0.1}, {"gamma": math.nan}],
    "eoser": [{"gamma_min": 0.9, "gamma_max": 0.5}, {"gamma_min": -1}],
    "ass": [{"num_blocks": 0}, {"num_blocks": 5}, {"num_blocks": 2}, {"gamma_min": 2.0}],
    "ccd": [{"budget": 0}, {"budget": 8}, {"dynamic": "yes"}, {"candidates": 1.5}],
    "credit": [{"alpha": -1}, {"beta": 1.5}, {"gamma": -0.5}],
    "hierarchy": [{"threshold": 7}, {"low_threshold": 0.95}, {"low_threshold": "none"}],
    "klass": [{"threshold": 2}, {"kl_threshold": 0}, {"kl_history": 0}],
    "learn2pd": [{"threshold": 2}, {"eot": 0}, {"filter": 3}, {"filter": "nowhere.safetensors"}],
    "localleap": [{"threshold": 2}, {"relaxed": 0.95}, {"radius": -1}, {"radius": 1.5}],
    "prophet": [
        {"early": -1},
        {"answer_start": -1},
        {"answer_start": 16},
        {"answer_length": 3},
        {"constraints": {1.5: 3}},
        {"constraints": {2: 3.5}},
        {"constraints": {2: 999}},
        {"constraints": {99: 3}},
        {"constraints": "yes"},
    ],
    "freedave": [{"draft_steps": 0}, {"draft_mode": "forest"}, {"threshold": 1.5}],
    "dsb": [{"max_block_length": 0}, {"block_length": None}],
    "dcd": [{"max_window": 7}, {"block_length": None}],
    "streaming": [{"threshold": 7}, {"alpha": -0.1}, {"alpha": 2}, {"ratio": "suffix"}],
    "wino": [{"threshold": 7}, {"threshold_back": -1}],
    "edit": [{"editing_threshold": 7}, {"max_post_steps": -1}, {"max_post_steps": 1.5}],
    "adablock": [
        {"delimiter_threshold": 1.5},
        {"window": 0},
        {"window": 2},
        {"delimiters": ()},
        {"delimiters": (999,)},
        {"delimiters": (0.5,)},
        {"block_length": None},
    ],
}
BAD_CASES = [(name, bad) for name, cases in BAD_OPTIONS.items() for bad in cases]


@pytest.mark.parametrize("recipe, bad", BAD_CASES, ids=str)
def test_an_option_out_of_its_range_is_refused_by_name_before_any_forward(recipe, bad):
    with counted_forwards(micro("llada")) as count:
        with pytest.raises(ValueError, match="|".join([*bad, "answer_start"])):
            run(recipe, prompts(3), **bad)
    assert count.calls == 0


def test_every_sampler_has_options_that_are_refused():
    assert set(BAD_OPTIONS) == set(dlmdecode.list_samplers())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_guidance_works_with_every_sampler_or_is_refused_before_any_forward(recipe, dtype):
    more = {"cfg_scale": 0.5, "confidence_dtype": dtype}
    if recipe not in UNGUIDED:
        assert not (run(recipe, prompts(3), **more).sequences == MASK).any()
        return
    with counted_forwards(micro("llada")) as count:
        with pytest.raises(ValueError, match="cfg_scale=0.5"):
            run(recipe, prompts(3), **more)
    assert count.calls == 0


@pytest.mark.parametrize("recipe, cache", WINDOWED)
def test_a_temperature_works_with_every_sampler_or_is_refused(recipe, cache):
    if "freedave" in recipe:
        with pytest.raises(ValueError, match="temperature"):
            run(recipe, prompts(3), cache=cache, temperature=0.7)
        return
    out = run(recipe, prompts(3, 4), cache=cache, temperature=0.7, confidence_dtype="float64")
    assert not (out.sequences == MASK).any()


@pytest.mark.parametrize("recipe", sorted(UNCACHED))
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_what_a_cache_does_not_compute_is_not_read_from_it(recipe, cache):
    with counted_forwards(micro("llada")) as count:
        with pytest.raises(ValueError, match=f"cache='{cache}'.*use cache='none'"):
            run(recipe, prompts(3), cache=cache)
    assert count.calls == 0


def test_dawn_commits_no_two_positions_that_attend_to_one_another():
    canvas = Canvas.of([torch.tensor([1])], 4, MASK, (EOS,))
    canvas.open_blocks(lambda rows: rows.stop - rows.start)
    canvas.proposal.prob = torch.tensor([[0, 0.95, 0.8, 0.75, 0.78]]).double()
    canvas.memory[PROB] = torch.tensor([[0.5, 0, 0, 0, 0]])
    edges = torch.zeros(1, 5, 5, dtype=torch.bool)
    canvas.memory[EDGES] = edges
    recipe = dlmdecode.sampler("dawn")

    def chosen() -> list[int]:
        return choose(recipe, canvas)[0].nonzero()[:, 0].tolist()

    assert chosen() == [1, 2, 3, 4]  # nothing depends on anything
    edges[0, 3, 2] = True
    assert chosen() == [1, 2, 4]  # 2 and 3 are tied, and 2 is surer
    edges[0, 1, 4] = True
    assert chosen() == [1, 2]  # 4 is tied to 1, which is sure
    edges[0, 4, 0] = True
    assert chosen() == [1, 2]  # the model is not sure of the text that 4 depends on
    canvas.memory[PROB][0, 0] = 0.9
    assert chosen() == [1, 2, 4]


def test_sched_leaves_when_the_mean_gap_of_the_whole_text_reaches_a_falling_threshold():
    canvas = Canvas.of([torch.tensor([1])], 4, MASK, (EOS,))
    canvas.open_blocks(lambda rows: rows.stop - rows.start)
    canvas.fresh = Span(canvas.start, canvas.stop)
    canvas.proposal.margin = torch.tensor([[9.0, 3, 4, 6, 7]])  # 5 on average over the text

    def leaves(written: int, **options) -> bool:
        canvas.tokens = torch.tensor([[1, *[1] * written, *[MASK] * (4 - written)]])
        (stop,) = dlmdecode.sampler("sched", **options).stops
        return bool(stop(canvas))

    assert [leaves(n) for n in range(4)] == [False, False, True, True]  # 7.5, 6.25, 5, 3.75
    assert [leaves(n, schedule="cosine", low=2.4) for n in (1, 2)] == [False, True]
    assert [leaves(n, schedule="exponential") for n in (0, 1)] == [False, True]  # 7.5, 4.3
    assert not leaves(3, low=6.0)
    canvas.proposal.token = torch.tensor([[1, 1, 1, EOS, EOS]])
    canvas.proposal.margin[0, 4] = 99  # beyond the first end token, which is proposed
    assert leaves(0) and not leaves(0, until_eos=True)
    assert [leaves(n, until_eos=True) for n in (1, 2)] == [False, False]  # 4.33
    canvas.tokens[0, 1] = EOS  # written: 3 alone counts
    (stop,) = dlmdecode.sampler("sched", low=3.0, high=3.0, until_eos=True).stops
    assert stop(canvas)


def test_hierarchy_without_an_upper_rule_writes_the_peaks_and_without_a_bar_all_of_them():
    canvas = Canvas.of([torch.tensor([1])], 7, MASK, (EOS,))
    canvas.lo, canvas.hi = canvas.start, canvas.stop
    canvas.tokens[0, 4] = 1  # two runs of masks: positions 1 to 3, and 5 to 7
    canvas.proposal.prob = torch.tensor([[0, 0.5, 0.95, 0.97, 0, 0.3, 0.2, 0.1]]).double()

    def chosen(**options):
        recipe = dlmdecode.sampler("hierarchy", **options)
        return choose(recipe, canvas)[0].nonzero()[:, 0].tolist()

    assert chosen() == [2, 3]
    assert chosen(threshold=None) == [3]
    assert chosen(low_threshold=None) == [2, 3, 5]
    assert chosen(threshold=None, low_threshold=None) == [3, 5]


def test_a_filter_is_refused_on_longer_blocks_than_it_was_trained_on():
    with pytest.raises(ValueError, match="block_length"):
        run("learn2pd", prompts(3), max_new_tokens=32, block_length=16)


def test_a_recipe_says_whether_its_verification_is_lossless():
    assert dlmdecode.sampler("freedave").lossless
    assert dlmdecode.sampler("adablock+freedave").lossless
    assert not dlmdecode.sampler("freedave", threshold=0.9).lossless
    assert not dlmdecode.sampler("credit+freedave").lossless


def test_an_end_of_text_prediction_cuts_the_text():
    rows = prompts(5)
    whole = run("learn2pd", rows)
    cut = run("learn2pd", rows, eot=1e-6)
    kept = cut.sequences[0, 5:].tolist()
    assert len(kept) == len(whole.sequences[0, 5:])
    assert sum(cut.nfe) <= sum(whole.nfe)


def test_families_get_the_defaults_published_for_them():
    from dlmdecode.registry import registered

    assert registered("threshold").options("llada2_moe")["threshold"] == 0.95
    assert registered("freedave").options("llada")["draft_steps"] == 4
    assert registered("freedave").options("Dream")["draft_steps"] == 8
    assert registered("adablock").options("Dream")["delimiter_threshold"] == 0.5
