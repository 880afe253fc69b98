"""How the extension is found and chosen, and a step of its ops as a graph."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from op_inputs import MASK, logits_like, needs_extension

from dlmdecode import ops
from dlmdecode.ops import extension


@needs_extension
def test_a_step_exports_as_one_graph():
    class Step(torch.nn.Module):
        def forward(self, z, tokens, lo, hi):
            proposed = ops.propose(z, exclude=3)
            shape = tokens.shape
            confidence = proposed.log_prob.exp().view(shape)
            tokens = tokens.clone()
            ops.commit(
                tokens, proposed.token.view(shape), confidence, lo, hi, MASK, "threshold",
                threshold=0.5,
            )  # fmt: skip
            return tokens

    inputs = (
        logits_like("random", 8, 60),
        torch.full((2, 4), MASK),
        torch.tensor([0, 1]),
        torch.tensor([4, 4]),
    )
    exported = torch.export.export(Step(), inputs)
    assert torch.equal(exported.module()(*inputs), Step()(*inputs))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert "dlmdecode.propose.default" in names and "dlmdecode.commit.default" in names


def in_a_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@needs_extension
def test_every_instruction_set_gives_the_same_tokens():
    code = """
import torch
from dlmdecode import ops
z = torch.randn(3, 9001, generator=torch.Generator().manual_seed(0)) * 3
for how in ({}, {"temperature": 1.0}, {"dtype": torch.float64}):
    found = ops.propose(z, **how)
    print(found.token.tolist(), [f"{x:.4g}" for f in found[1:] for x in f.tolist()])
print(ops.topm(z.half(), 3)[0].tolist())
"""
    printed = {in_a_process(code, DLMDECODE_ISA=isa) for isa in ("portable", "avx2", "")}
    assert len(printed) == 1


def test_the_reference_can_be_forced():
    code = "from dlmdecode import ops; print(ops.is_available())"
    assert in_a_process(code, DLMDECODE_REFERENCE="1") == "False\n"


def test_a_missing_extension_is_said_and_a_broken_one_raises(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("DLMDECODE_REFERENCE", raising=False)
    with caplog.at_level(logging.INFO, logger="dlmdecode"):
        assert not extension.load(tmp_path / "_C.abi3.so")
    assert "plain torch" in caplog.text
    (tmp_path / "_C.abi3.so").write_bytes(b"not a library")
    with pytest.raises(OSError, match="_C.abi3.so"):
        extension.load(tmp_path / "_C.abi3.so")


@needs_extension
def test_an_extension_built_from_older_sources_says_how_to_mend_it():
    def reference(logits, m, seed): ...

    with pytest.raises(ImportError, match="no op newer.*build it again"):
        extension.register("newer", reference, reference)
    with pytest.raises(ImportError, match="another op topm.*build it again"):
        extension.register("topm", reference, reference)
