"""`ops.propose` against a float64 oracle, and what it promises beyond equal numbers."""

import math

import pytest
import torch
from op_inputs import FILLS, logits_like, needs_extension, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops
from dlmdecode.ops import philox

VOCABULARIES = (1, 2, 3, 127, 2049, 50257, 126464, 152064)


def assert_close(found, expected, dtype=torch.float32):
    assert torch.equal(found.token, expected.token)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for name in ("log_prob", "margin", "entropy"):
        value, wanted = getattr(found, name), getattr(expected, name)
        assert value.dtype == dtype
        torch.testing.assert_close(
            value.double(), wanted.double(), rtol=tolerance, atol=1e-30, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_propose_equals_the_float64_oracle(vocabulary, fill):
    z = logits_like(fill, 3, vocabulary)
    assert_close(ops.propose(z), reference(ops.propose, z, dtype=torch.float64))
    assert_close(ops.propose(z[:1]), reference(ops.propose, z[:1], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_propose_reads_other_dtypes(dtype):
    z = logits_like("random", 4, 3001).to(dtype)
    assert_close(ops.propose(z), reference(ops.propose, z, dtype=torch.float64))
    small = (logits_like("random", 4, 3001) * 1e-6).to(dtype)  # float16: subnormal
    assert_close(ops.propose(small), reference(ops.propose, small, dtype=torch.float64))


def test_propose_in_float64_is_precise_to_rounding():
    z = logits_like("sharp", 4, 5000)
    found = ops.propose(z, dtype=torch.float64)
    assert_close(found, reference(ops.propose, z, dtype=torch.float64), torch.float64)


def test_log_probability_keeps_its_precision_near_zero():
    z = torch.zeros(3, 1000)
    z[0, 7], z[1, 7], z[2, 7] = 20.0, 40.0, 80.0
    found = ops.propose(z)
    exact = -torch.log1p(999 * torch.exp(-torch.tensor([20.0, 40.0, 80.0], dtype=torch.float64)))
    torch.testing.assert_close(found.log_prob.double(), exact, rtol=1e-5, atol=0)


def test_lowest_id_wins_ties_at_every_place():
    z = torch.zeros(1, 70000)
    for first in (0, 1, 2047, 2048, 32767, 32768, 69998):
        z[0, first] = z[0, 69999] = 5.0
        found = ops.propose(z)
        assert found.token.item() == first and found.margin.item() == 0
        z[0, first] = 0.0


def test_rows_may_be_apart_in_memory_or_transposed():
    wide = logits_like("random", 6, 5000)
    for z in (wide[:, 1:4000], wide[::2], wide.T.contiguous().T, wide[:, ::3]):
        assert not z.is_contiguous()
        assert_close(ops.propose(z), reference(ops.propose, z, dtype=torch.float64))


def test_no_rows_give_empty_results():
    assert [len(field) for field in ops.propose(torch.empty(0, 10))] == [0, 0, 0, 0]
    assert ops.topm(torch.empty(0, 10), 3)[0].shape == (0, 3)


def test_rows_that_are_not_needed_are_not_read():
    z = logits_like("random", 5, 3000)
    need = torch.tensor([True, False, True, False, False])
    z[1] = torch.nan
    found = ops.propose(z, need=need)
    alone = ops.propose(z[need])
    assert all(torch.equal(a[need], b) for a, b in zip(found, alone, strict=True))
    assert found.token[~need].tolist() == [-1] * 3
    assert found.log_prob[~need].tolist() == [-math.inf] * 3
    assert not ops.propose(z, need=torch.zeros(5, dtype=torch.bool)).entropy.any()


@pytest.mark.parametrize("place", [0, 5, 2999])
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf])
def test_a_row_with_nan_or_infinity_is_named(value, place):
    z = logits_like("random", 4, 3000)
    z[2, place] = value
    for exclude in (-1, place):
        with pytest.raises(ValueError, match="row 2 "):
            ops.propose(z, exclude=exclude)
    with pytest.raises(ValueError, match="row 2 "):
        ops.topm(z, 3)
    z[:] = -torch.inf
    z[0, place] = value
    with pytest.raises(ValueError, match="row 0, 1, 2, 3 "):
        ops.propose(z)


def test_a_row_with_nothing_to_propose_is_named():
    z = logits_like("random", 2, 10)
    z[1] = -torch.inf
    with pytest.raises(ValueError, match="row 1 "):
        ops.propose(z)
    with pytest.raises(ValueError, match="row 0 "):
        ops.propose(z[:1, :1], exclude=0)


@pytest.mark.parametrize("height", [-50.0, 0.0, 50.0, 900.0])
def test_the_excluded_token_is_never_proposed_but_stays_in_the_normaliser(height):
    z = logits_like("random", 4, 5000)
    z[:, 4321] = height
    found = ops.propose(z, exclude=4321)
    assert_close(found, reference(ops.propose, z, exclude=4321, dtype=torch.float64))
    banned = z.clone()
    banned[:, 4321] = -torch.inf
    assert torch.equal(found.token, ops.propose(banned).token)
    assert torch.equal(found.margin, ops.propose(banned).margin)


def test_philox_gives_its_published_test_vectors():
    zero, ones = torch.zeros(1, dtype=torch.int64), torch.full((1,), philox.WORD)
    words = [word.item() for word in philox.philox((zero,) * 4, 0)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [word.item() for word in philox.philox((ones,) * 4, -1)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 50.0])
def test_sampled_tokens_equal_the_reference_bit_for_bit(temperature, fill):
    z = logits_like(fill, 20, 5003)
    stream = torch.arange(20) * 2**40 - 7
    how = {"temperature": temperature, "seed": 2**64 - 3, "exclude": 1234}
    how |= {"stream": stream, "position": torch.arange(20) + 5}
    found, expected = ops.propose(z, **how), reference(ops.propose, z, **how)
    assert torch.equal(found.token, expected.token)
    torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=1e-4, atol=1e-6)


def test_noise_does_not_depend_on_the_batch_or_the_threads():
    z = logits_like("random", 5, 70000)
    how = {"temperature": 1.0, "seed": 3, "dtype": torch.float64}
    stream, position = torch.arange(5) * 977, torch.arange(5) % 3
    whole = ops.propose(z, stream=stream, position=position, **how)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = ops.propose(z, stream=stream, position=position, **how)
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    for row in range(5):
        part = slice(row, row + 1)
        alone = ops.propose(z[part], stream=stream[part], position=position[part], **how)
        assert all(torch.equal(a[part], b) for a, b in zip(whole, alone, strict=True))


def test_samples_follow_the_softmax():
    z = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -1.0]])
    draws = 20000
    how = {"temperature": 0.5, "stream": torch.arange(draws), "seed": 11}
    token = ops.propose(z.expand(draws, 5), **how).token
    expected = (z / 0.5).softmax(1)[0] * draws
    count = torch.bincount(token, minlength=5)
    kept = expected > 0
    chi_squared = ((count - expected)[kept] ** 2 / expected[kept]).sum()
    assert count[2] == 0 and chi_squared < 22  # 3 degrees of freedom: p = 7e-5


def test_the_only_token_left_is_certain_to_the_last_bit():
    logits = torch.full((3, 50257), -torch.inf)
    logits[torch.arange(3), torch.tensor([5, 700, 50256])] = torch.tensor([3.2, -8.0, 0.1])
    for dtype in (torch.float32, torch.float64):
        found = ops.propose(logits, dtype=dtype)
        assert found.log_prob.tolist() == [0, 0, 0]
        assert found.entropy.tolist() == [0, 0, 0]


@needs_extension
def test_opcheck_accepts_it():
    z = logits_like("random", 3, 50)
    how = (None, 3, 0.5, 1, None, None)
    opcheck(torch.ops.dlmdecode.propose, (z, *how, False))
    opcheck(torch.ops.dlmdecode.propose, (z.bfloat16(), *how, True))


BAD = {
    "logits": torch.zeros(50),
    "exclude": 50,
    "temperature": -1.0,
    "dtype": torch.float16,
    "need": torch.ones(2, dtype=torch.bool),
    "stream": torch.ones(3),
    "position": torch.ones(2).long(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(name):
    with pytest.raises(ValueError, match=f"^{name}"):
        ops.propose(**{"logits": torch.zeros(3, 50), name: BAD[name]})


def test_nonsense_is_refused_by_name():
    refuses_nonsense(ops.propose, logits=torch.randn(3, 8), exclude=-1, temperature=0.0, seed=0)
    none = {"need": None, "stream": None, "position": None}
    refuses_nonsense(ops.propose, logits=torch.randn(3, 8), **none)
