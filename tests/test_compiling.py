"""`load(…, compile=True)`: blocks that torch.compile takes, under any cache."""

from __future__ import annotations

import shutil

import pytest
import torch
from toy import MODELS, micro, prompts

import dlmdecode
from dlmdecode.models import compiling

OPTIONS = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore"}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own
@needs_compiler
@pytest.mark.parametrize("family, caches", [("llada", ["none", "prefix"]), ("dream", ["dual"])])
def test_compiled_blocks_write_the_same_texts(family, caches):
    torch.compiler.reset()
    compiled, plain = dlmdecode.load(MODELS / f"{family}-micro", "cpu", compile=True), micro(family)
    for cache in caches:
        for rows in (prompts(5, 2, 9), prompts(4)):
            given = {"prompt": rows, "sampler": "threshold", "cache": cache, **OPTIONS}
            one, other = (dlmdecode.generate(model, **given) for model in (compiled, plain))
            assert torch.equal(one.sequences, other.sequences) and one.nfe == other.nfe


def test_both_halves_of_every_block_are_compiled_for_sizes_that_vary(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda half, dynamic: seen.append(dynamic) or half)
    model = dlmdecode.load("tiny", "cpu", compile=True)
    assert seen == [True] * 2 * model.num_layers


@pytest.mark.parametrize(
    "given, message",
    [
        ({"compile": 1}, "compile=1: give True or False"),
        ({"compile": True}, "compile=True: it needs a C\\+\\+ compiler"),
        ({"compile": True, "quantize": "int8"}, "compile=True: packed weights run as they are"),
    ],
)
def test_what_cannot_be_compiled_is_refused(given, message, monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr("dlmdecode.models.loading.check_quantize", lambda kind: None)
    with pytest.raises(ValueError, match=message):
        dlmdecode.load("tiny", "cpu", **given)
