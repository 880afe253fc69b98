"""`ops.credit` against the dense definition of trace credits, and against the reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_inputs import needs_extension, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops


def dense_credit(z, table, alpha, beta, gamma):
    """The published form, with a credit for every token (changes `table`)."""
    table *= beta
    best = z.softmax(1).max(1)
    table.scatter_add_(1, best.indices[:, None], best.values[:, None] ** gamma)
    return z + alpha * table.log1p()


@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.0, 0.65]))
@settings(max_examples=20, deadline=None)
def test_sparse_credits_equal_the_dense_definition(seed, vocabulary, alpha):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(3, vocabulary, generator=generator) * 2
    how = {"alpha": alpha, "beta": 0.7, "gamma": 0.2}
    ids, credits = torch.full((3, 6), -1), torch.zeros(3, 6)
    table = torch.zeros(3, vocabulary, dtype=torch.float64)
    for _ in range(6):
        z = z + torch.randn(3, vocabulary, generator=generator)
        found, ids, credits = ops.credit(z, ids, credits, **how)
        fused = dense_credit(z.double(), table, **how)
        expected = reference(ops.propose, fused, dtype=torch.float64)
        assert torch.equal(found.token, expected.token)
        for name in ("log_prob", "margin", "entropy"):
            value, wanted = getattr(found, name).double(), getattr(expected, name)
            torch.testing.assert_close(value, wanted, rtol=2e-5, atol=3e-6)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_credits_equal_the_reference_when_slots_run_out(slots):
    generator = torch.Generator().manual_seed(4)
    ids, credits = torch.full((4, slots), -1), torch.zeros(4, slots)
    need = torch.tensor([True, True, False, True])
    how = {"alpha": 2.0, "beta": 0.9, "gamma": 0.5, "need": need, "exclude": 8}
    how |= {"temperature": 0.7, "seed": 5, "stream": torch.arange(4)}
    for _ in range(12):
        z = torch.randn(4, 9, generator=generator) * 2
        expected = reference(ops.credit, z, ids, credits, **how)
        found = ops.credit(z, ids, credits, **how)
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[2], expected[2])
        assert torch.equal(found[0].token, expected[0].token)
        torch.testing.assert_close(found[0].log_prob, expected[0].log_prob, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0].entropy, expected[0].entropy, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0].margin, expected[0].margin, rtol=1e-4, atol=1e-6)
        _, ids, credits = found
    assert ids[2].tolist() == [-1] * slots


@needs_extension
def test_opcheck_accepts_it():
    state = (torch.full((3, 2), -1), torch.zeros(3, 2), 0.5, 0.7, 0.2)
    how = (None, 3, 0.5, 1, None, None, False)
    opcheck(torch.ops.dlmdecode.credit, (torch.randn(3, 50), *state, *how))


def test_arguments_that_do_not_fit_are_named():
    z, ids, credits = torch.randn(3, 8), torch.full((3, 2), -1), torch.zeros(3, 2)
    rates = {"alpha": 0.5, "beta": 0.7, "gamma": 0.2}
    refuses_nonsense(ops.credit, logits=z, ids=ids, credits=credits, **rates)
    with pytest.raises(ValueError, match="^beta"):
        ops.credit(z, ids, credits, **rates | {"beta": -1.0})
    with pytest.raises(ValueError, match="^ids"):
        ops.credit(z, ids[:, :0], credits, **rates)


@pytest.mark.parametrize("bad", [math.nan, -0.5, math.inf])
def test_credits_that_are_none_are_refused(bad):
    credits = torch.zeros(3, 2)
    credits[1, 0] = bad
    with pytest.raises(ValueError, match=f"credits={bad}"):
        ops.credit(
            torch.randn(3, 8), torch.full((3, 2), -1), credits, alpha=0.5, beta=0.7, gamma=0.2
        )
