"""How the extension is found and chosen, what torch asks of its ops, and what they refuse."""

import copy
import logging
import math
import os
import subprocess
import sys

import pytest
import torch
from op_inputs import MASK, canvases, logits_like, random_search

from dlmdecode import ops
from dlmdecode.ops import extension

needs_extension = pytest.mark.skipif(not extension.LOADED, reason="the extension is not built")


@needs_extension
def test_opcheck_accepts_every_op():
    from torch.library import opcheck

    z = logits_like("random", 3, 50)
    how = (None, 3, 0.5, 1, None, None, z.flip(0), 0.5, None, None, False)
    opcheck(torch.ops.dlmdecode.propose, (z, *how))
    opcheck(torch.ops.dlmdecode.propose, (z.bfloat16(), *how[:6], None, *how[7:10], True))
    state = (torch.full((3, 2), -1), torch.zeros(3, 2), 0.5, 0.7, 0.2)
    opcheck(torch.ops.dlmdecode.credit, (z, *state, *how))
    tokens, proposed, confidence, lo, hi = canvases(0)
    rule = (MASK, 1, 0.6, 0.0, 0, None, None, 1)
    opcheck(torch.ops.dlmdecode.commit, (tokens, proposed, confidence, lo, hi, *rule))
    opcheck(torch.ops.dlmdecode.topm, (z, 4))
    log_prob, ids = z.float().log_softmax(1).topk(5)
    opcheck(torch.ops.dlmdecode.candidates, (ids, log_prob, 0.8, torch.tensor([1])))
    dynamic = ("test_schema", "test_faketensor")
    opcheck(torch.ops.dlmdecode.count_ngrams, (ids[0], 2), test_utils=dynamic)
    # the length of a path is data: no test of fixed shapes
    opcheck(
        torch.ops.dlmdecode.path_search,
        tuple(random_search(0, 2, 0.5).values()),
        test_utils=("test_schema", "test_faketensor"),
    )


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
def test_an_extension_built_from_older_sources_says_how_to_mend_it(monkeypatch):
    monkeypatch.setattr(extension, "OPS", (*extension.OPS, "newer"))
    with pytest.raises(ImportError, match="no op newer.*build it again"):
        extension.load(extension.BUILT)


BAD_PROPOSE = {
    "exclude": 50,
    "temperature": -1.0,
    "cfg_scale": math.inf,
    "dtype": torch.float16,
    "need": torch.ones(2, dtype=torch.bool),
    "stream": torch.ones(3),
    "uncond": torch.ones(3, 49),
    "edits": (torch.ones(3, 2), torch.ones(3, 2)),
}


@pytest.mark.parametrize("name", BAD_PROPOSE)
def test_arguments_that_do_not_fit_are_named(name):
    with pytest.raises(ValueError, match=f"^{name}"):
        ops.propose(torch.zeros(3, 50), **{name: BAD_PROPOSE[name]})


def test_other_bad_arguments_are_named_too():
    z = torch.zeros(3, 50)
    slots = torch.full((3, 2), -1), torch.zeros(3, 2)
    canvas = (torch.zeros(2, 4).long(), torch.zeros(2, 4).long(), torch.zeros(2, 4))
    bounds = torch.zeros(2).long(), torch.zeros(2).long()
    calls = {
        "logits": lambda: ops.propose(z[0]),
        "m=": lambda: ops.topm(z, 33),
        "beta": lambda: ops.credit(z, *slots, alpha=1.0, beta=-1.0, gamma=1.0),
        "ids": lambda: ops.credit(z, slots[0][:, :0], slots[1], alpha=1, beta=1, gamma=1),
        "rule": lambda: ops.commit(*canvas, *bounds, 9, "treshold"),
        "threshold": lambda: ops.commit(*canvas, *bounds, 9, "threshold"),
        "quota": lambda: ops.commit(*canvas, *bounds, 9, "topk", quota=torch.ones(3).long()),
        "confidence": lambda: ops.commit(
            *canvas[:2], canvas[2][:1], *bounds, 9, "threshold", threshold=1.0
        ),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}"):
            call()


def test_no_check_of_the_kernels_speaks_to_a_user():
    """What does not fit is a ValueError that names the argument, not where C++ found it."""
    z, ids, credits = torch.randn(3, 8), torch.full((3, 2), -1), torch.zeros(3, 2)
    state = {"ids": ids, "credits": credits, "alpha": 0.5, "beta": 0.7, "gamma": 0.2}
    tokens, proposed, confidence, lo, hi = canvases(0)
    canvas = {"tokens": tokens, "proposed": proposed, "confidence": confidence, "lo": lo, "hi": hi}
    canvas |= {"mask_id": MASK, "rule": "threshold", "threshold": 0.5}
    search = random_search(0, 2, 0.5)
    lattice = {"ids": search["ids"], "log_prob": search["log_prob"], "eos_ids": search["eos_ids"]}
    wrong = [
        0.5,
        "x",
        None,
        [1],
        torch.zeros(0),
        torch.zeros(2, 2, 2),
        torch.zeros(3).cfloat(),
        True,
    ]
    tables = {"keys", "log_probs", "contexts", "weights"}  # one of them can name another
    calls = [
        (ops.propose, {"logits": z, "exclude": -1, "temperature": 0.0, "seed": 0}),
        (ops.propose, {"logits": z, "need": None, "stream": None, "position": None}),
        (ops.propose, {"logits": z, "uncond": None, "cfg_scale": 0.0, "edits": None}),
        (ops.credit, {"logits": z, **state}),
        (ops.commit, canvas),
        (ops.topm, {"logits": z, "m": 2}),
        (ops.candidates, lattice | {"mass": 0.8}),
        (ops.path_search, search),
        (ops.count_ngrams, {"ids": torch.arange(5), "order": 2}),
    ]
    for op, arguments in calls:
        for name, right in arguments.items():
            for value in wrong:
                try:
                    op(**copy.deepcopy(arguments) | {name: value})
                except ValueError as error:
                    named = tables if name in tables else {name.rstrip("s")}
                    assert any(one in str(error) for one in named), (op.__name__, name, str(error))
                    assert "csrc" not in str(error) and ".cpp" not in str(error)
                else:
                    fits = value is None or type(value) is type(right) or isinstance(value, float)
                    assert fits or name in ("keys", "edits"), (op.__name__, name, value)


@pytest.mark.parametrize("bad", [math.nan, -0.5, math.inf])
def test_credits_that_are_none_are_refused(bad):
    credits = torch.zeros(3, 2)
    credits[1, 0] = bad
    with pytest.raises(ValueError, match=f"credits={bad}"):
        ops.credit(
            torch.randn(3, 8), torch.full((3, 2), -1), credits, alpha=0.5, beta=0.7, gamma=0.2
        )
