"""`ops.commit` against each rule written out in plain Python."""

import math

import pytest
import torch
from by_hand import chosen_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from op_inputs import MASK, canvases, needs_extension, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops

RULES = {
    "topk": {"quota": torch.tensor([0, 2, 50])},
    "threshold": {"threshold": 0.6},
    "factor": {"factor": 0.9},
    "frechet": {"delta": 0.2},
    "entropy_bound": {"gamma": 0.8},
    "relaxed": {"threshold": 0.8, "relaxed": 0.5, "radius": 2},
}


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_commit_follows_each_rule(rule, seed):
    tokens, proposed, confidence, lo, hi = canvases(seed)
    entropy = torch.rand(3, 14, generator=torch.Generator().manual_seed(seed + 1)) + 1e-3
    how = dict(RULES[rule])
    expected = tokens.clone()
    for row in range(3):
        window = range(max(lo[row].item(), 0), min(hi[row].item(), 14))
        open_positions = [i for i in window if tokens[row, i] == MASK and proposed[row, i] >= 0]
        c = {i: confidence[row, i].nan_to_num(-math.inf).item() for i in open_positions}
        quota = how["quota"][row].item() if rule == "topk" else None
        for i in chosen_by_hand(rule, c, entropy[row].tolist(), quota, how):
            expected[row, i] = proposed[row, i]
    if rule == "entropy_bound":
        how["entropy"] = entropy
    written = tokens.clone()
    count = ops.commit(written, proposed, confidence, lo, hi, MASK, rule, **how)
    assert torch.equal(written, expected)
    assert torch.equal(count, (written != tokens).sum(1))
    again = tokens.clone()
    canvas = (again, proposed, confidence, lo, hi)
    reference_count = reference(ops.commit, *canvas, MASK, rule, **how)
    assert torch.equal(again, expected) and torch.equal(reference_count, count)


@needs_extension
def test_opcheck_accepts_it():
    rule = (MASK, 1, 0.6, 0.0, 0, None, None, 1)
    opcheck(torch.ops.dlmdecode.commit, (*canvases(0), *rule))


def test_arguments_that_do_not_fit_are_named():
    names = ("tokens", "proposed", "confidence", "lo", "hi")
    canvas = dict(zip(names, canvases(0), strict=True))
    refuses_nonsense(ops.commit, **canvas, mask_id=MASK, rule="threshold", threshold=0.5)


def test_commit_can_take_nothing_when_told_to():
    tokens = torch.full((1, 4), MASK)
    proposed, confidence = torch.arange(4)[None], torch.rand(1, 4)
    bounds = torch.tensor([0]), torch.tensor([4])
    quota = torch.tensor([0])
    count = ops.commit(tokens, proposed, confidence, *bounds, MASK, "topk", quota=quota, minimum=0)
    assert count.item() == 0 and bool((tokens == MASK).all())


def test_commit_compares_in_the_precision_of_the_confidence():
    bounds = torch.tensor([0]), torch.tensor([3])
    for dtype in (torch.float32, torch.float64):
        tokens, proposed = torch.full((1, 3), MASK), torch.arange(3)[None]
        confidence = torch.tensor([[0.9, 0.95, 0.1]], dtype=dtype)
        count = ops.commit(tokens, proposed, confidence, *bounds, MASK, "threshold", threshold=0.9)
        assert count.item() == 2


def test_a_rule_gets_its_parameters_and_no_others():
    canvas = (torch.zeros(2, 4).long(), torch.zeros(2, 4).long(), torch.zeros(2, 4))
    bounds = torch.zeros(2).long(), torch.zeros(2).long()
    calls = {
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
