"""torch's default dtype and device are the caller's business: no result depends on them."""

from contextlib import contextmanager

import pytest
import speculation_toys as toys
import torch
from test_samplers import CACHES, RECIPES, run
from toy import EOS, MASK, MODELS, LogitsModule, micro, prompts, talking

import dlmdecode
from dlmdecode.decoding.noise import streams
from dlmdecode.speculation import CausalDrafter, PromptLookup, load_verifier, speculate

DTYPES = (torch.float64, torch.bfloat16)


@contextmanager
def defaults(dtype=torch.float32, device=None):
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


ALTERED = [{"dtype": dtype} for dtype in DTYPES] + [{"device": "meta"}]


def same_whatever_the_defaults(act):
    expected = act()
    for altered in ALTERED:
        with defaults(**altered):
            assert act() == expected, altered


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_sampler_depends_on_them(recipe):
    rows = prompts(5, 2)
    same_whatever_the_defaults(lambda: run(recipe, rows).sequences.tolist())
    if "freedave" not in recipe:
        how = {"temperature": 0.7, "seed": 3}
        same_whatever_the_defaults(lambda: run(recipe, rows, **how).sequences.tolist())


@pytest.mark.parametrize("alg", ["origin", "maskgit_plus", "topk_margin", "entropy"])
def test_no_rule_of_dream_depends_on_them(alg):
    rows = prompts(5, 2)
    how = {"alg": alg, "temperature": 0.4, "alg_temp": 0.3, "top_p": 0.9, "top_k": 50}
    how = how if alg == "entropy" else {"alg": alg}
    same_whatever_the_defaults(lambda: run("dream", rows, "dream", **how).sequences.tolist())


@pytest.mark.parametrize("cache", CACHES)
def test_no_cache_and_no_guidance_depends_on_them(cache):
    rows = prompts(5, 2)
    for how in ({}, {"cfg_scale": 1.5}, {"confidence_dtype": "float64"}):
        same_whatever_the_defaults(
            lambda how=how: run("threshold", rows, cache=cache, **how).sequences.tolist()
        )


KEPT = [("llada", "threshold", cache) for cache in ("d2", "dkv", "dllm", "flash", "sparse")]
KEPT += [("sdar", "threshold", "block"), ("llada", "dsb", "dsb"), ("llada", "dcd", "dcd")]


@pytest.mark.parametrize(("family", "sampler", "cache"), KEPT)
def test_what_a_cache_keeps_does_not_depend_on_them(family, sampler, cache):
    how = {"sampler": sampler, "cache": cache, "max_new_tokens": 16, "block_length": 8}
    model, rows = micro(family), prompts(5, 2)
    same_whatever_the_defaults(lambda: dlmdecode.generate(model, rows, **how).sequences.tolist())


@pytest.mark.parametrize(("family", "sampler", "cache"), KEPT)
def test_a_cache_keeps_what_autocast_gives(family, sampler, cache):
    how = {"sampler": sampler, "cache": cache, "max_new_tokens": 16, "block_length": 8}
    with torch.autocast("cpu", torch.bfloat16):
        out = dlmdecode.generate(micro(family), prompts(5, 2), **how)
    assert MASK not in out.sequences[:, 5:].tolist()[0]


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_model_loads_with_its_own_dtype_and_on_its_own_device(family):
    def act():
        model = dlmdecode.load(MODELS / f"{family}-micro", device="cpu")
        ids = torch.arange(7, device="cpu")[None]
        return model.dtype, str(model.device), model(ids).tolist()

    same_whatever_the_defaults(act)


def test_prompts_in_every_form_are_the_same_prompts():
    model = talking()
    chat = [{"role": "user", "content": "w1 w2"}]
    encoded = {"input_ids": [[1, 2, 0], [3, 4, 5]], "attention_mask": [[1, 1, 0], [1, 1, 1]]}
    for prompt in ("w1 w2", ["w1", "w2 w3"], chat, [1, 2, 3], [[1], [2, 3]], encoded):
        same_whatever_the_defaults(
            lambda prompt=prompt: dlmdecode.generate(model, prompt, max_new_tokens=8).texts
        )


def test_the_noise_of_a_prompt_is_its_own():
    rows = prompts(5, 5, 9)
    same_whatever_the_defaults(lambda: streams(rows, 7).tolist())


def test_a_wrapped_module_decodes_the_same():
    rows = prompts(5, 2)
    for module in (LogitsModule(micro("llada")), Constant()):
        model = dlmdecode.wrap(module, mask_id=MASK, eos_ids=EOS)
        same_whatever_the_defaults(
            lambda model=model: dlmdecode.generate(model, rows, max_new_tokens=8).sequences.tolist()
        )


class Constant(torch.nn.Module):
    """No parameters: likes token 7 at every position."""

    def forward(self, tokens):
        return torch.nn.functional.one_hot(torch.full_like(tokens, 7), 320).float()


@pytest.mark.parametrize(
    "drafter, search",
    [("dream", "cps"), ("llada", "cps"), ("llada", "argmax"), ("lookup", "cps"), ("causal", "cps")],
)
def test_speculation_drafts_and_accepts_the_same(drafter, search):
    made = {
        "lookup": PromptLookup,
        "causal": lambda: CausalDrafter(toys.llama(seed=1)),
        "dream": lambda: micro("dream"),
        "llada": lambda: micro("llada"),
    }[drafter]()
    verifier = toys.llama()
    how = {"path_search": search, "vocabulary": "identity", "max_new_tokens": 12}

    def act():
        out = speculate(made, verifier, [1, 2, 3, 1, 2], **how)
        return out.sequences.tolist(), out.stats["num_accepted_draft_tokens"]

    same_whatever_the_defaults(act)


def test_a_verifier_loads_with_its_own_dtype_and_on_its_own_device():
    def act():
        model = load_verifier("tiny-ar", device="cpu").model
        return str(model.dtype), str(model.device)

    same_whatever_the_defaults(act)
