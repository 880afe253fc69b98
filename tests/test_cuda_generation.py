"""What is decoded on a GPU is what is decoded on a CPU."""

import pytest
import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CACHES = ("prefix", "dual", "dkv", "dllm", "d2", "sparse", "flash")


@pytest.fixture(scope="module")
def models():
    return dlmdecode.load("tiny"), dlmdecode.load("tiny", device="cuda")


def assert_same_texts(models, **how):
    prompts = [problem(seed).question for seed in range(3)]
    here, there = (
        dlmdecode.generate(model, prompts, max_new_tokens=64, block_length=32, **how).texts
        for model in models
    )
    assert there == here


@pytest.mark.parametrize("sampler", dlmdecode.list_samplers())
def test_texts_of_a_sampler_are_those_of_the_cpu(models, sampler):
    assert_same_texts(models, sampler=sampler)


@pytest.mark.parametrize("cache", CACHES)
def test_texts_under_a_cache_are_those_of_the_cpu(models, cache):
    assert_same_texts(models, sampler="threshold", cache=cache)


def test_sampled_texts_are_those_of_the_cpu(models):
    assert_same_texts(models, sampler="threshold", temperature=0.7, seed=5)


def test_texts_of_compiled_blocks_are_the_same(models):
    pytest.importorskip("triton")
    here, _ = models
    assert_same_texts((here, dlmdecode.load("tiny", device="cuda", compile=True)))
