"""The fused ops against a float64 oracle, and what they promise beyond equal numbers."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from by_hand import chosen_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode import extension, ops, philox, reference

VOCABULARIES = (1, 2, 3, 127, 2049, 50257, 126464, 152064)
FILLS = ("random", "sharp", "tied", "constant", "extreme", "banned")
needs_extension = pytest.mark.skipif(not extension.LOADED, reason="the extension is not built")


def logits_like(fill, rows, vocabulary, seed=0):
    z = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    if fill == "sharp":
        z *= 10
    elif fill == "tied":
        z = z.round()
    elif fill == "constant":
        z = torch.full_like(z, -1.3)
    elif fill == "extreme":
        z = z.sign() * 1e4 + z
    elif fill == "banned":
        z[:, 1::2] = -torch.inf
    return z


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
    assert_close(ops.propose(z), reference.propose(z, dtype=torch.float64))
    assert_close(ops.propose(z[:1]), reference.propose(z[:1], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_propose_reads_other_dtypes(dtype):
    z = logits_like("random", 4, 3001).to(dtype)
    assert_close(ops.propose(z), reference.propose(z, dtype=torch.float64))
    small = (logits_like("random", 4, 3001) * 1e-6).to(dtype)  # float16: subnormal
    assert_close(ops.propose(small), reference.propose(small, dtype=torch.float64))


def test_propose_in_float64_is_precise_to_rounding():
    z = logits_like("sharp", 4, 5000)
    found = ops.propose(z, dtype=torch.float64)
    assert_close(found, reference.propose(z, dtype=torch.float64), torch.float64)


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
        assert_close(ops.propose(z), reference.propose(z, dtype=torch.float64))


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
    assert_close(found, reference.propose(z, exclude=4321, dtype=torch.float64))
    banned = z.clone()
    banned[:, 4321] = -torch.inf
    assert torch.equal(found.token, ops.propose(banned).token)
    assert torch.equal(found.margin, ops.propose(banned).margin)


def test_guidance_and_edits_change_the_logits_first():
    z, u = logits_like("random", 4, 5000), logits_like("random", 4, 5000, seed=1)
    ids = torch.tensor([[3, 3, -1], [4999, 0, 7], [-1, -1, -1], [2048, 9000, 2]])
    values = torch.tensor([[4.0, 5.0, 9e9], [20.0, -torch.inf, 1.0], [1.0, 1.0, 1.0], [30.0, 5, 5]])
    changed = u + (z - u) * 1.5
    used = (ids >= 0) & (ids < 5000)
    changed.scatter_add_(1, ids.where(used, 0), values.where(used, 0))
    found = ops.propose(z, uncond=u, cfg_scale=0.5, edits=(ids, values))
    assert_close(found, reference.propose(changed, dtype=torch.float64))


def test_a_token_that_both_models_ban_stays_banned_under_guidance():
    z, u = logits_like("random", 2, 50), logits_like("random", 2, 50, seed=1)
    z[:, 3] = u[:, 3] = -torch.inf
    found = ops.propose(z, uncond=u, cfg_scale=2.0)
    assert found.token.tolist() == (u + 3 * (z - u)).nan_to_num(-1e9).argmax(1).tolist()


def test_philox_gives_its_published_test_vectors():
    zero, ones = torch.zeros(1, dtype=torch.int64), torch.full((1,), philox.WORD)
    words = [word.item() for word in philox.philox((zero,) * 4, 0)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [word.item() for word in philox.philox((ones,) * 4, -1)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 50.0])
def test_sampled_tokens_equal_the_reference_bit_for_bit(temperature):
    z = logits_like("random", 20, 5003)
    stream = torch.arange(20) * 2**40 - 7
    how = {"temperature": temperature, "seed": 2**64 - 3, "exclude": 1234}
    how |= {"stream": stream, "position": torch.arange(20) + 5}
    found, expected = ops.propose(z, **how), reference.propose(z, **how)
    assert torch.equal(found.token, expected.token)
    torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=1e-4, atol=1e-6)


def test_noise_does_not_depend_on_the_batch_or_the_threads():
    z = logits_like("random", 12, 70000)
    how = {"temperature": 1.0, "seed": 3, "dtype": torch.float64}
    stream, position = torch.arange(12) * 977, torch.arange(12) % 3
    whole = ops.propose(z, stream=stream, position=position, **how)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = ops.propose(z, stream=stream, position=position, **how)
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    for row in range(12):
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


def dense_credit(z, table, alpha, beta, gamma):
    """The published form, with a credit for every token (changes `table`)."""
    table *= beta
    best = z.softmax(1).max(1)
    table.scatter_add_(1, best.indices[:, None], best.values[:, None] ** gamma)
    return z + alpha * table.log1p()


@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.0, 0.65]))
@settings(max_examples=40, deadline=None)
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
        expected = reference.propose(fused, dtype=torch.float64)
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
        expected = reference.credit(z, ids, credits, **how)
        found = ops.credit(z, ids, credits, **how)
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[2], expected[2])
        assert torch.equal(found[0].token, expected[0].token)
        torch.testing.assert_close(found[0].log_prob, expected[0].log_prob, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0].entropy, expected[0].entropy, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0].margin, expected[0].margin, rtol=1e-4, atol=1e-6)
        _, ids, credits = found
    assert ids[2].tolist() == [-1] * slots


MASK = 99
RULES = {
    "topk": {"quota": torch.tensor([0, 2, 50])},
    "threshold": {"threshold": 0.6},
    "factor": {"factor": 0.9},
    "frechet": {"delta": 0.2},
    "entropy_bound": {"gamma": 0.8},
    "relaxed": {"threshold": 0.8, "relaxed": 0.5, "radius": 2},
}


def canvases(seed, length=14):
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(3, length, generator=generator) < 0.6
    tokens = torch.where(masked, MASK, torch.arange(length))
    proposed = torch.randint(-2, 40, (3, length), generator=generator)
    # coarse: ties are common; some numbers are not there
    confidence = (
        torch.rand(3, length, generator=generator, dtype=torch.float64).mul(10).round() / 10
    )
    confidence[torch.rand(3, length, generator=generator) < 0.05] = torch.nan
    lo = torch.randint(-2, length, (3,), generator=generator)
    hi = lo + torch.randint(0, length + 2, (3,), generator=generator)
    return tokens, proposed, confidence, lo, hi


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
    selection = ops.selection(rule, dict.fromkeys(ALL_PARAMETERS) | how, 1)
    reference_count = reference.commit(again, proposed, confidence, lo, hi, MASK, selection)
    assert torch.equal(again, expected) and torch.equal(reference_count, count)


ALL_PARAMETERS = ("quota", "threshold", "factor", "delta", "gamma", "entropy", "relaxed", "radius")


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


@pytest.mark.parametrize("vocabulary", [1, 5, 3001, 126464])
def test_topm_equals_a_stable_sort(vocabulary):
    for fill in ("random", "tied", "banned"):
        z = logits_like(fill, 5, vocabulary)
        ids, log_prob = ops.topm(z, 32)
        values, order = z.double().sort(dim=1, descending=True, stable=True)
        kept = min(32, vocabulary)
        finite = values[:, :kept] > -torch.inf
        assert torch.equal(ids[:, :kept], order[:, :kept].where(finite, -1))
        assert bool((ids[:, kept:] == -1).all())
        exact = z.double().log_softmax(1).gather(1, order[:, :kept])
        torch.testing.assert_close(log_prob[:, :kept].double(), exact, rtol=1e-5, atol=1e-30)


def random_search(seed, order, lam):
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(0, 8, (40, 12), generator=generator).tolist()
    tables = []
    for n in range(1, order + 1):
        grams = sorted({reference.key_of(t[i : i + n]) for t in texts for i in range(13 - n)})
        contexts = sorted(
            {reference.key_of(t[i : i + n - 1]) for t in texts for i in range(13 - n)}
        )
        contexts = contexts if n > 1 else []
        scores = (-torch.rand(len(k), generator=generator) * 5 for k in (grams, contexts))
        tables.append((torch.tensor(grams), next(scores), contexts, next(scores)))
    keys, log_probs, contexts, weights = zip(*tables, strict=True)
    return {
        "ids": torch.stack([torch.randperm(10, generator=generator)[:6] for _ in range(7)]),
        "log_prob": torch.randn(7, 6, generator=generator).log_softmax(1),
        "count": torch.randint(1, 7, (7,), generator=generator),
        "keys": list(keys),
        "log_probs": list(log_probs),
        "contexts": [torch.tensor(c, dtype=torch.int64) for c in contexts],
        "weights": list(weights),
        "floor": -9.5,
        "prefix": torch.tensor([5, 1, 2]),
        "beam": 3,
        "lam": lam,
        "eos_ids": torch.tensor([0]),
    }


@given(st.integers(0, 10**6), st.floats(0.01, 1.0), st.sampled_from([(), (3,), (3, 5)]))
@settings(max_examples=60, deadline=None)
def test_candidates_equal_the_reference(seed, mass, eos_ids):
    z = 2 * torch.randn(6, 12, generator=torch.Generator().manual_seed(seed))
    z[z < -1] = -torch.inf
    log_prob, ids = z.log_softmax(1).topk(8)
    how = {"mass": mass, "eos_ids": torch.tensor(eos_ids, dtype=torch.int64)}
    *kept, count = ops.candidates(ids, log_prob, **how)
    *expected, expected_count = reference.candidates(ids, log_prob, **how)
    assert torch.equal(count, expected_count)
    for one, other in zip(kept, expected, strict=True):
        for k, n in enumerate(count.tolist()):
            assert torch.equal(one[k, :n], other[k, :n])
            assert torch.equal(one[k].sort().values, other[k].sort().values)


@pytest.mark.parametrize("name, value", [("mass", 0.0), ("log_prob", torch.zeros(2, 1))])
def test_candidates_name_what_does_not_fit(name, value):
    ids = torch.tensor([[1, 2]])
    how = {"ids": ids, "log_prob": torch.zeros(1, 2), "mass": 0.5, "eos_ids": ids[0]}
    with pytest.raises(ValueError, match=name):
        ops.candidates(**how | {name: value})


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_path_search_equals_the_reference(seed, order, lam):
    how = random_search(seed, order, lam)
    path, score = ops.path_search(**how)
    expected, expected_score = reference.path_search(**how)
    assert torch.equal(path, expected)
    assert score == pytest.approx(expected_score.item(), rel=1e-12)


def test_a_wide_beam_finds_the_best_of_all_paths():
    how = random_search(1, 2, 0.5) | {"beam": 10**6, "eos_ids": torch.tensor([-5])}
    how = {k: v[:4] if k in ("ids", "log_prob", "count") else v for k, v in how.items()}
    _, score = ops.path_search(**how)
    best = -math.inf
    for i in torch.cartesian_prod(*(torch.arange(n) for n in how["count"].tolist())).tolist():
        one = [how[name].gather(1, torch.tensor(i)[:, None]) for name in ("ids", "log_prob")]
        rest = {k: v for k, v in how.items() if k not in ("ids", "log_prob", "count")}
        best = max(best, reference.path_search(*one, torch.ones(4).long(), **rest)[1].item())
    assert score == pytest.approx(best, rel=1e-12)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_count_ngrams_equals_the_reference(ids, order):
    ids = torch.tensor(ids, dtype=torch.int64)
    found, expected = ops.count_ngrams(ids, order), reference.count_ngrams(ids, order)
    for array, wanted in zip(found, expected, strict=True):
        assert array.dtype == wanted.dtype
        torch.testing.assert_close(array, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "name, how", [("ids", (torch.zeros(3), 2)), ("order", (torch.zeros(3).long(), 0))]
)
def test_count_ngrams_names_what_does_not_fit(name, how):
    with pytest.raises(ValueError, match=f"^{name}="):
        ops.count_ngrams(*how)


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
    import os

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
        extension.load(Path(extension.__file__).with_name("_C.abi3.so"))


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


def test_the_only_token_left_is_certain_to_the_last_bit():
    logits = torch.full((3, 50257), -torch.inf)
    logits[torch.arange(3), torch.tensor([5, 700, 50256])] = torch.tensor([3.2, -8.0, 0.1])
    for dtype in (torch.float32, torch.float64):
        found = ops.propose(logits, dtype=dtype)
        assert found.log_prob.tolist() == [0, 0, 0]
        assert found.entropy.tolist() == [0, 0, 0]
