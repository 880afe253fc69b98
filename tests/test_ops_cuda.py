"""The CUDA kernels against the CPU's, where there is a GPU."""

import pytest
import torch

from dlmdecode import ops

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and ops.is_available("cuda")), reason="no GPU or no CUDA build"
)
SMALL, LARGE = (1, 2, 3, 127, 2049), (50257, 126464, 152064)


def on_gpu(value):
    if isinstance(value, tuple):
        return tuple(on_gpu(one) for one in value)
    return value.cuda() if isinstance(value, torch.Tensor) else value


def assert_same(z, rtol=1e-5, **how):
    found = ops.propose(z.cuda(), **{name: on_gpu(value) for name, value in how.items()})
    expected = ops.propose(z, **how)
    assert torch.equal(found.token.cpu(), expected.token)
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(a.cpu().double(), b.double(), rtol=rtol, atol=1e-6)


def check_vocabulary(vocabulary):
    z = torch.randn(5, vocabulary) * 3
    stream = torch.arange(5) * 2**40 + 7
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert_same(z.to(dtype))
    assert_same(z, dtype=torch.float64, rtol=1e-12)
    assert_same(z.round())
    assert_same(torch.zeros_like(z))
    assert_same(z[::2])
    assert_same(z, need=torch.tensor([True, False, False, True, True]))
    assert_same(z, temperature=0.8, seed=2**63, stream=stream, position=torch.arange(5))
    assert_same(z.double(), temperature=0.8, seed=5, stream=stream)
    if vocabulary > 1:
        assert_same(z, exclude=vocabulary - 1)


@pytest.mark.parametrize("vocabulary", SMALL)
def test_small_propose_equals_the_cpu(vocabulary):
    check_vocabulary(vocabulary)


@pytest.mark.parametrize("vocabulary", LARGE)
def test_large_propose_equals_the_cpu(vocabulary):
    check_vocabulary(vocabulary)


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_small_bad_rows_are_marked_and_found_by_check(value):
    z = torch.randn(4, 9000)
    z[2, 8999] = value
    found = ops.propose(z.cuda())
    assert found.token.tolist()[2] == ops.BAD and (found.token[:2] >= 0).all()
    with pytest.raises(ValueError, match="row 2 "):
        ops.check(found)


@pytest.mark.parametrize("slots", [1, 3, 40])
def test_small_credit_equals_the_cpu(slots):
    ids, credits = torch.full((6, slots), -1), torch.zeros(6, slots)
    gpu_ids, gpu_credits = ids.cuda(), credits.cuda()
    how = {"alpha": 0.65, "beta": 0.7, "gamma": 0.2, "exclude": 3, "temperature": 0.5}
    for _ in range(6):
        z = torch.randn(6, 9001)
        expected, ids, credits = ops.credit(z, ids, credits, **how)
        found, gpu_ids, gpu_credits = ops.credit(z.cuda(), gpu_ids, gpu_credits, **how)
        assert torch.equal(found.token.cpu(), expected.token)
        assert torch.equal(gpu_ids.cpu(), ids)
        torch.testing.assert_close(gpu_credits.cpu(), credits)
        torch.testing.assert_close(found.log_prob.cpu(), expected.log_prob, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [5, 64, 1500])
def test_small_commit_equals_the_cpu(length):
    rules = {
        "topk": {"quota": torch.tensor([0, 2, 50])},
        "threshold": {"threshold": 0.6},
        "factor": {"factor": 0.9},
        "frechet": {"delta": 0.2},
        "entropy_bound": {"gamma": 0.8, "entropy": torch.rand(3, length)},
        "relaxed": {"threshold": 0.8, "relaxed": 0.5, "radius": 2},
    }
    for rule, how in rules.items():
        tokens = torch.where(torch.rand(3, length) < 0.7, 99, 1)
        proposed = torch.randint(-1, 50, (3, length))
        confidence = torch.rand(3, length).mul(20).round() / 20
        lo, hi = torch.tensor([0, 1, length // 2]), torch.tensor([length, length // 2 + 1, length])
        gpu = tokens.cuda()
        rest = (proposed, confidence, lo, hi)
        gpu_how = {name: on_gpu(value) for name, value in how.items()}
        found = ops.commit(gpu, *on_gpu(rest), 99, rule, **gpu_how)
        expected = ops.commit(tokens, *rest, 99, rule, **how)
        assert torch.equal(gpu.cpu(), tokens) and torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("vocabulary", [5, 3001, 126464])
def test_small_topm_equals_the_cpu(vocabulary):
    for z in (torch.randn(4, vocabulary), torch.randn(4, vocabulary).round()):
        ids, log_prob = ops.topm(z.cuda(), 15)
        expected_ids, expected = ops.topm(z, 15)
        assert torch.equal(ids.cpu(), expected_ids)
        torch.testing.assert_close(log_prob.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_a_step_is_a_graph():
    z = torch.randn(32, 4096, device="cuda")
    tokens = torch.full((2, 16), 99, device="cuda")
    bounds = torch.zeros(2, dtype=torch.int64).cuda(), torch.full((2,), 16).cuda()

    def step():
        proposed = ops.propose(z)
        confidence = proposed.log_prob.exp().view(2, 16)
        return ops.commit(
            tokens, proposed.token.view(2, 16), confidence, *bounds, 99, "threshold", threshold=2.0
        )

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    tokens.fill_(99)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        count = step()
    tokens.fill_(99)
    for done in range(1, 4):
        graph.replay()
        assert count.tolist() == [1, 1] and (tokens != 99).sum().item() == 2 * done
