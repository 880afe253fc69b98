"""Models whose attention is causal between blocks: their logits, blocks, and the exact cache."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from test_samplers import LENGTH, RECIPES, UNCACHED, options
from toy import BLOCK_CAUSAL, EOS, MASK, MODELS, LogitsModule, fond_of, micro, prompts

import dlmdecode
from dlmdecode.caches import CommittedCache, Recompute, cache_policy
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Span
from dlmdecode.models.protocol import Denoiser, block_causal
from dlmdecode.models.rotary import rotary, rotate
from dlmdecode.parts.blocks import AlignedBlocks, FixedBlocks
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter

TOLERANCE = 1e-4
OWN = 4  # the block of SDAR's micro model
AS_IT_STANDS = {*UNCACHED, "sched"}  # with a forward of their own; read written text anew
EXACT = [recipe for recipe in RECIPES if recipe not in AS_IT_STANDS]


def shifted():
    """SDAR with the logits that Fast-dLLM v2 has: those at i speak for i + 1."""
    model = copy.copy(micro("sdar"))
    model.shift = 1
    return model


def run(recipe, prompt, model=None, **more):
    shape = {"max_new_tokens": LENGTH, "eos": "ignore"}
    return dlmdecode.generate(model or micro("sdar"), prompt, recipe, **(shape | more))


@pytest.fixture(params=BLOCK_CAUSAL)
def family(request):
    return request.param


def recorded(family: str) -> dict[str, torch.Tensor]:
    return load_file(MODELS / f"{family}-micro" / "forward.safetensors")


@pytest.mark.parametrize("case", range(4))
@torch.inference_mode()
def test_logits_are_those_of_the_published_code(family, case):
    values = recorded(family)
    assert micro(family).block_length == values["block_length"].item()
    logits = micro(family)(values[f"input_ids.{case}"])
    for name in ("logits", "logits64"):
        expected = values[f"{name}.{case}"].float()
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_an_open_block_beside_kept_keys_and_values_gives_the_recorded_logits(family):
    values, model = recorded(family), micro(family)
    prefix, block = values["cache.prefix_ids"], values["cache.block_ids"]
    first, last = values["cache.block_start_end"].tolist()
    every, store = torch.arange(last)[None], {}

    def mix(layer, k, v):
        old = store.setdefault(layer, (k, v))
        return (k, v) if k is old[0] else tuple(map(lambda a, b: torch.cat([a, b], 2), old, (k, v)))

    before, here = every[:, :first], every[:, first:]
    model.encode(prefix.view(1, -1), before, model.attention(before, before), mix)
    hidden = model.encode(block.view(1, -1), here, model.attention(here, every), mix)
    expected = values["cache.block_logits"].view(1, last - first, -1)
    torch.testing.assert_close(model.head(hidden), expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_sub_block_beside_the_rest_of_its_block_gives_the_recorded_logits():
    values, model = recorded("fast-dllm-v2"), micro("fast-dllm-v2")
    first, last = values["cache.sub_start_end"].tolist()
    _, end = values["cache.block_start_end"].tolist()
    tokens = torch.cat([values["cache.prefix_ids"], values["cache.block_ids"]], 1)
    every, store = torch.arange(end)[None], {}

    def mix(layer, k, v):
        old = store.setdefault(layer, (k, v))
        pairs = zip(old, (k, v), strict=True)
        return (
            (k, v)
            if k is old[0]
            else tuple(
                torch.cat([kept[:, :, :first], new, kept[:, :, last:]], 2) for kept, new in pairs
            )
        )

    model.encode(tokens, every, model.attention(every, every), mix)
    here = every[:, first:last]
    attend = model.attention(here, every)
    hidden = model.encode(values["cache.sub_ids"].view(1, -1), here, attend, mix)
    expected = values["cache.sub_logits"].view(1, last - first, -1)
    torch.testing.assert_close(model.head(hidden), expected, atol=TOLERANCE, rtol=0)


def test_a_position_sees_its_own_block_and_those_before_it():
    seen = block_causal(torch.arange(5), torch.arange(5), 2).long().tolist()
    assert seen == [[1, 1, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0]] * 2 + [[1, 1, 1, 1, 1]]


def test_attention_is_the_pattern_and_what_is_shown():
    model, place = Denoiser(), torch.arange(4)[None]
    shown = (place < 3)[:, None, None]
    assert model.attention(place, place) is None and model.attention(place, place, shown) is shown
    model.block_length = 2
    both = model.attention(place, place, shown)
    assert both.shape == (1, 1, 4, 4)
    assert both[0, 0].long().tolist() == [[1, 1, 0, 0]] * 2 + [[1, 1, 1, 0]] * 2
    assert torch.equal(model.attention(place, place)[:, 0], model.pattern(place, place))


@pytest.mark.parametrize("recipe", EXACT)
def test_the_committed_cache_writes_what_no_cache_writes_and_each_row_its_single_run(recipe):
    rows = prompts(5, 2, 9)
    plain = run(recipe, rows, cache="none", **options(recipe))
    kept = run(recipe, rows, cache="block", **options(recipe))
    assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe
    for i, prompt in enumerate(rows):
        alone = run(recipe, prompt, cache="block", **options(recipe))
        assert torch.equal(kept.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])
        assert kept.nfe[i] == alone.nfe[0]
    assert not (kept.sequences == MASK).any()


@pytest.mark.parametrize("recipe", ["threshold", "dream", "klass", "credit", "adablock+freedave"])
@pytest.mark.parametrize("block_length", [2, 8, None])
def test_so_it_is_for_other_blocks_and_where_logits_are_shifted(recipe, block_length):
    if recipe.startswith("adablock") and block_length is None:
        pytest.skip("adablock needs a length")
    rows, more = prompts(5, 2, 9), options(recipe) | {"block_length": block_length}
    for model in (micro("sdar"), shifted()):
        plain, kept = (run(recipe, rows, model, cache=c, **more) for c in ("none", "block"))
        assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe


@pytest.mark.parametrize(
    "recipe, block_length",
    [
        ("vanilla", 8),
        ("threshold", "auto"),
        ("dream", 8),
        ("klass", "auto"),
        ("credit", 8),
        ("freedave", "auto"),
        ("freedave", 8),
    ],
)
def test_so_it_is_for_every_family(family, recipe, block_length):
    rows, model = prompts(5, 16, 33), micro(family)
    more = options(recipe) | {"max_new_tokens": 24, "block_length": block_length}
    plain, kept = (run(recipe, rows, model, cache=c, **more) for c in ("none", "block"))
    assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe
    for i, prompt in enumerate(rows):
        alone = run(recipe, prompt, model, cache="block", **more)
        assert torch.equal(kept.sequences[i, : len(prompt) + 24], alone.sequences[0])
        assert kept.nfe[i] == alone.nfe[0]


@pytest.mark.parametrize("more", [{"cfg_scale": 0.7}, {"temperature": 0.8, "seed": 3}])
def test_so_it_is_with_guidance_and_where_tokens_are_drawn(more):
    rows = prompts(5, 2, 9)
    plain, kept = (run("threshold", rows, cache=c, **more) for c in ("none", "block"))
    assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe


def test_so_it_is_where_rows_end_early():
    model, rows = fond_of(micro("sdar"), EOS, 5.0), prompts(5, 2, 9, 17)
    more = {"eos": "stop", "max_new_tokens": 32}
    plain, kept = (run("threshold", rows, model, cache=c, **more) for c in ("none", "block"))
    assert torch.equal(plain.sequences, kept.sequences) and plain.nfe == kept.nfe


@pytest.mark.parametrize("recipe", ["vanilla", "threshold"])
def test_it_computes_a_third_of_the_positions_or_fewer(family, recipe):
    rows, more = prompts(42, 39, 50), {"max_new_tokens": 32}
    plain, kept = (run(recipe, rows, micro(family), cache=c, **more) for c in ("none", "block"))
    assert 3 * kept.stats["forward_positions"] <= plain.stats["forward_positions"]


@torch.inference_mode()
def test_every_logit_that_the_committed_cache_gives_is_that_of_a_forward_over_everything(family):
    model = micro(family)
    own = model.block_length
    start, (prompt,) = own + 2, prompts(own + 2)
    canvas = Canvas.of([prompt], 3 * own - 2, MASK, (EOS,))
    cache = CommittedCache(model)
    for lo in (start, 2 * own, 2 * own, 3 * own):
        canvas.lo, canvas.hi = torch.tensor([lo]), torch.tensor([lo // own * own + own])
        canvas.tokens[0, start:lo] = torch.arange(start, lo)
        logits, positions = cache(canvas, Span(canvas.lo, canvas.hi))
        canvas.nfe = canvas.nfe + 1
        assert torch.equal(positions.at[0], torch.arange(lo, lo // own * own + own))
        expected = model(canvas.tokens)[0, positions.at[0] - model.shift]
        torch.testing.assert_close(logits[0], expected, atol=TOLERANCE, rtol=0)
    assert cache.kept.tolist() == [3 * own]


@pytest.mark.parametrize(
    "family, cache, message",
    [
        ("llada", "block", "cache='block': with full attention no block is ever final"),
        ("dream", "block", "cache='block': with full attention"),
        ("sdar", "prefix", "cache='prefix': .*blocks are causal: use 'block', exact"),
        ("sdar", "dual", "cache='dual': .*blocks are causal"),
    ],
)
def test_a_cache_that_makes_no_sense_for_the_attention_is_refused(family, cache, message):
    with pytest.raises(ValueError, match=message):
        run("threshold", prompts(3), micro(family), cache=cache)


@pytest.mark.parametrize("cache, policy", [("auto", CommittedCache), ("none", Recompute)])
def test_by_default_a_block_causal_model_keeps_what_is_committed(family, cache, policy):
    assert type(cache_policy(micro(family), cache)) is policy
    assert type(cache_policy(micro("llada"), cache)) is Recompute
    rows, model = prompts(5, 2, 9), micro(family)
    default, given = run("threshold", rows, model), run("threshold", rows, model, cache="block")
    assert default.stats["forward_positions"] == given.stats["forward_positions"]
    assert torch.equal(default.sequences, run("threshold", rows, model, cache=cache).sequences)


def test_blocks_are_counted_from_the_first_position():
    steps = list(
        dlmdecode.stream(micro("sdar"), prompts(6)[0], "vanilla", max_new_tokens=9, eos="ignore")
    )
    blocks = [(int(step.lo[0]), int(step.hi[0])) for step in steps]
    assert blocks == [(6, 8)] * 2 + [(8, 12)] * 4 + [(12, 15)] * 3


def test_auto_is_the_models_own_block_for_every_sampler():
    assert FixedBlocks(8).bind(micro("sdar")) == AlignedBlocks(8)
    assert FixedBlocks(8).bind(micro("llada")) == FixedBlocks(8)
    for recipe in ("threshold", "vanilla", "dream", "entropy_bound"):
        auto = run(recipe, prompts(6), **options(recipe))
        given = run(recipe, prompts(6), block_length=OWN, **options(recipe))
        assert torch.equal(auto.sequences, given.sequences), recipe


@pytest.mark.parametrize("wrong", [3, 6])
def test_blocks_that_cross_those_of_the_model_are_refused(wrong):
    with pytest.raises(ValueError, match=f"block_length={wrong}: the model's blocks have 4"):
        run("threshold", prompts(3), block_length=wrong)


def test_fewer_steps_than_blocks_are_refused():
    with pytest.raises(ValueError, match="steps=3: .* give at least 4, one for each"):
        run("vanilla", prompts(3), steps=3)
    assert run("vanilla", prompts(4), steps=4).nfe == [4]


def test_padding_hidden_by_the_attention_mask_changes_nothing():
    model, (ids,) = micro("sdar"), prompts(10)
    padded = torch.cat([ids, torch.full((3,), MASK)])[None]
    shown = (torch.arange(13) < 10).long()[None]
    torch.testing.assert_close(model(padded, shown)[:, :10], model(ids[None]), atol=1e-4, rtol=0)


def test_a_wrapped_block_causal_model_decodes_as_the_native_one():
    native, rows = micro("sdar"), prompts(5, 2, 9)
    wrapped = dlmdecode.wrap(native)
    assert wrapped.block_length == OWN and not wrapped.supports_cache
    assert type(cache_policy(wrapped, "auto")) is Recompute
    assert torch.equal(run("threshold", rows, wrapped).sequences, run("threshold", rows).sequences)
    with pytest.raises(ValueError, match="cache='block': a wrapped module"):
        run("threshold", rows, wrapped, cache="block")
    around = dlmdecode.wrap(LogitsModule(native))
    assert around.block_length is None  # it does not say


def test_wino_judges_by_what_the_pattern_shows():
    rows = prompts(5, 2, 9)
    batch = run("wino", rows, **options("wino"))
    for i, prompt in enumerate(rows):
        alone = run("wino", prompt, **options("wino"))
        assert torch.equal(batch.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])


def test_a_drafter_keeps_whole_blocks_and_drafts_as_without_a_cache(family):
    (text,), own = prompts(40), micro(family).block_length
    cached, plain = (DiffusionDrafter(micro(family), prefix_cache=c) for c in (True, False))
    for length in (7, 8, 32, 34, 11, 16, 30):  # it grows, and it is cut back
        prefix = text[:length].tolist()
        mine, theirs = cached.draft(prefix, 6), plain.draft(prefix, 6)
        assert torch.equal(mine.ids[:, 0], theirs.ids[:, 0])
        torch.testing.assert_close(mine.log_prob, theirs.log_prob, atol=TOLERANCE, rtol=0)
        assert len(cached.cache.ids) == length // own * own


def test_a_rotary_code_of_a_part_of_the_head_leaves_the_rest_alone():
    x, place = torch.randn(1, 2, 5, 8), torch.arange(5)[None]
    part = rotate(x, *rotary(place, 4, 1e4))
    assert torch.equal(part[..., 4:], x[..., 4:])
    assert torch.equal(part[..., :4], rotate(x[..., :4].contiguous(), *rotary(place, 4, 1e4)))
