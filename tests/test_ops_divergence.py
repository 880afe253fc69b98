"""`ops.divergence`: the kernels against plain torch."""

import pytest
import torch
from op_inputs import FILLS, logits_like, needs_extension, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def compared(fill, vocabulary, dtype=torch.float32):
    """Rows, those before them and their norms, and which is compared with which."""
    before = logits_like(fill, 4, vocabulary, seed=1)
    logits = before + 0.1 * torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    at = torch.tensor([2, 1, -1, 4])  # the last two are no rows
    before, logits = before.to(dtype), logits.to(dtype)
    return logits, before, before.double().logsumexp(1), at


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("vocabulary", (1, 2, 129, 1024, 2049))
def test_a_kernel_gives_what_plain_torch_gives(fill, vocabulary):
    for dtype in DTYPES:
        arguments = compared(fill, vocabulary, dtype)
        found, expected = ops.divergence(*arguments), reference(ops.divergence, *arguments)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=3e-6)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)
        assert found[0][2:].tolist() == [torch.inf, torch.inf]


def test_nothing_moves_where_logits_are_the_same():
    logits, *_ = compared("random", 3000)
    _, norm = ops.divergence(logits, logits[:0], torch.zeros(0).double(), torch.full((4,), -1))
    nats, _ = ops.divergence(logits, logits, norm, torch.arange(4))
    assert nats.abs().max() < 1e-6


def test_a_token_without_probability_adds_nothing_and_one_that_had_none_is_infinitely_far():
    logits, before, _, _ = compared("random", 50)
    logits[0, 3] = before[0, 3] = before[1, 5] = -torch.inf
    norm = before.double().logsumexp(1)
    nats = ops.divergence(logits, before, norm, torch.arange(4))[0].tolist()
    assert 0 < nats[0] < 1 and nats[1] == torch.inf


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_rows_without_a_distribution_are_no_number(value):
    logits, before, norm, _ = compared("random", 1500)
    logits[1, 1499], logits[2] = value, -torch.inf
    for found in ops.divergence(logits, before, norm, torch.arange(4)):
        assert found.isnan().tolist() == [False, True, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_nobody_needs_are_left_alone(dtype):
    arguments, need = compared("random", 1500, dtype), torch.tensor([True, False, True, False])
    some, every = ops.divergence(*arguments, need=need), ops.divergence(*arguments)
    for found, whole, empty in zip(some, every, (torch.inf, 0), strict=True):
        assert torch.equal(found, whole.masked_fill(~need, empty))
    alike = reference(ops.divergence, *arguments, need=need)
    assert [found[~need].tolist() for found in some] == [other[~need].tolist() for other in alike]


def test_rows_may_be_apart_in_memory():
    logits, before, norm, at = compared("random", 700)
    wide = torch.stack([logits, logits], 1).flatten(0, 1)
    assert torch.equal(
        ops.divergence(wide[::2], before, norm, at)[0], ops.divergence(logits, before, norm, at)[0]
    )


def test_it_refuses_what_does_not_fit():
    logits, before, norm, at = compared("random", 20)
    need = torch.ones(4, dtype=torch.bool)
    given = {"logits": logits, "before": before, "norm_before": norm, "at": at, "need": need}
    others = {"logits": {"logits", "before", "at"}, "before": {"before", "norm_before"}}
    refuses_nonsense(ops.divergence, others, **given)


@needs_extension
def test_opcheck():
    need = torch.tensor([True, False, True, True])
    opcheck(torch.ops.dlmdecode.divergence.default, (*compared("random", 300), need))
