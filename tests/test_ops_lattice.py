"""The ops of DiffuSpec: the best tokens of each position, n-grams, and the search for a path."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_inputs import logits_like, needs_extension, random_search, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops


@pytest.mark.parametrize("rows, vocabulary", [(5, 1), (5, 5), (5, 3001), (2, 126464)])
def test_topm_equals_a_stable_sort(rows, vocabulary):
    for fill in ("random", "tied", "banned"):
        z = logits_like(fill, rows, vocabulary)
        ids, log_prob = ops.topm(z, 32)
        values, order = z.double().sort(dim=1, descending=True, stable=True)
        kept = min(32, vocabulary)
        finite = values[:, :kept] > -torch.inf
        assert torch.equal(ids[:, :kept], order[:, :kept].where(finite, -1))
        assert bool((ids[:, kept:] == -1).all())
        exact = z.double().log_softmax(1).gather(1, order[:, :kept])
        torch.testing.assert_close(log_prob[:, :kept].double(), exact, rtol=1e-5, atol=1e-30)


@given(st.integers(0, 10**6), st.floats(0.01, 1.0), st.sampled_from([(), (3,), (3, 5)]))
@settings(max_examples=60, deadline=None)
def test_candidates_equal_the_reference(seed, mass, eos_ids):
    z = 2 * torch.randn(6, 12, generator=torch.Generator().manual_seed(seed))
    z[z < -1] = -torch.inf
    log_prob, ids = z.log_softmax(1).topk(8)
    how = {"mass": mass, "eos_ids": torch.tensor(eos_ids, dtype=torch.int64)}
    *kept, count = ops.candidates(ids, log_prob, **how)
    *expected, expected_count = reference(ops.candidates, ids, log_prob, **how)
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
    expected, expected_score = reference(ops.path_search, **how)
    assert torch.equal(path, expected)
    assert score == pytest.approx(expected_score, rel=1e-12)


def test_a_wide_beam_finds_the_best_of_all_paths():
    how = random_search(1, 2, 0.5) | {"beam": 10**6, "eos_ids": torch.tensor([-5])}
    how = {k: v[:4] if k in ("ids", "log_prob", "count") else v for k, v in how.items()}
    _, score = ops.path_search(**how)
    best = -math.inf
    for i in torch.cartesian_prod(*(torch.arange(n) for n in how["count"].tolist())).tolist():
        one = [how[name].gather(1, torch.tensor(i)[:, None]) for name in ("ids", "log_prob")]
        rest = {k: v for k, v in how.items() if k not in ("ids", "log_prob", "count")}
        best = max(best, reference(ops.path_search, *one, torch.ones(4).long(), **rest)[1])
    assert score == pytest.approx(best, rel=1e-12)


def random_tree(seed, order=2, lam=0.5, nodes=12):
    how = random_search(seed, order, lam) | {"nodes": nodes}
    return {name: value for name, value in how.items() if name != "beam"}


def in_order(how):
    """Arguments as the schema has them."""
    last = ("prefix", "nodes", "lam", "eos_ids")
    return tuple(value for name, value in how.items() if name not in last) + tuple(
        how[name] for name in last
    )


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_lattice_tree_equals_the_reference(seed, order, lam):
    how = random_tree(seed, order, lam)
    token, parent, score = ops.lattice_tree(**how)
    expected = reference(ops.lattice_tree, **how)
    path = along(parent, score)
    torch.testing.assert_close(path, along(*expected[1:]), rtol=1e-9, atol=1e-12)
    if (path[:-1] - path[1:] > 1e-9).all():  # of nearly equal paths either may come first
        assert torch.equal(token[:-1], expected[0][:-1])
        assert torch.equal(parent[:-1], expected[1][:-1])


def along(parent, score):
    """Log probabilities of the nodes' paths."""
    total = score.tolist()
    for node, of in enumerate(parent.tolist()):
        total[node] += total[of] if of >= 0 else 0.0
    return torch.tensor(total, dtype=torch.float64)


@pytest.mark.parametrize("lam", [0.3, 1.0])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_no_other_tree_of_a_lattice_has_a_higher_sum(nodes, lam):
    for seed in range(3):
        how = random_tree(seed, 2, lam, nodes)
        cut = {name: how[name][:3, :2] for name in ("ids", "log_prob")}
        how |= {"count": torch.full((3,), 2)} | cut
        whole = ops.lattice_tree(**how | {"nodes": 10**6})
        probability, children = [], {}
        for node, (of, own) in enumerate(zip(*map(torch.Tensor.tolist, whole[1:]), strict=True)):
            probability.append(math.exp(own) * (probability[of] if of >= 0 else 1.0))
            children[node] = of
        best = max(
            sum(probability[node] for node in subset)
            for subset in combinations(children, nodes)
            if all(children[node] in (-1, *subset) for node in subset)
        )
        parent, own = ops.lattice_tree(**how)[1:]
        found = []
        for of, one in zip(parent.tolist(), own.tolist(), strict=True):
            found.append(math.exp(one) * (found[of] if of >= 0 else 1.0))
        assert sum(found) == pytest.approx(best)


def test_a_lattice_of_one_candidate_is_a_chain():
    how = random_tree(0, nodes=7) | {"count": torch.ones(7).long(), "eos_ids": torch.tensor([-5])}
    token, parent, _ = ops.lattice_tree(**how)
    assert token.tolist() == how["ids"][:, 0].tolist()
    assert parent.tolist() == list(range(-1, 6))


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_count_ngrams_equals_the_reference(ids, order):
    ids = torch.tensor(ids, dtype=torch.int64)
    found, expected = ops.count_ngrams(ids, order), reference(ops.count_ngrams, ids, order)
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
def test_opcheck_accepts_each():
    z = logits_like("random", 3, 50)
    opcheck(torch.ops.dlmdecode.topm, (z, 4))
    log_prob, ids = z.float().log_softmax(1).topk(5)
    opcheck(torch.ops.dlmdecode.candidates, (ids, log_prob, 0.8, torch.tensor([1])))
    # how many n-grams there are and how long a path is are data: no test of fixed shapes
    dynamic = ("test_schema", "test_faketensor")
    opcheck(torch.ops.dlmdecode.count_ngrams, (ids[0], 2), test_utils=dynamic)
    search = tuple(random_search(0, 2, 0.5).values())
    opcheck(torch.ops.dlmdecode.path_search, search, test_utils=dynamic)
    opcheck(torch.ops.dlmdecode.lattice_tree, in_order(random_tree(0)), test_utils=dynamic)


def test_arguments_that_do_not_fit_are_named():
    search = random_search(0, 2, 0.5)
    lattice = {name: search[name] for name in ("ids", "log_prob", "eos_ids")}
    refuses_nonsense(ops.topm, logits=torch.randn(3, 8), m=2)
    refuses_nonsense(ops.candidates, **lattice, mass=0.8)
    refuses_nonsense(ops.path_search, ("keys", "log_probs", "contexts", "weights"), **search)
    tables = ("keys", "log_probs", "contexts", "weights")
    refuses_nonsense(ops.lattice_tree, tables, **random_tree(0))
    refuses_nonsense(ops.count_ngrams, ids=torch.arange(5), order=2)
    with pytest.raises(ValueError, match="^m="):
        ops.topm(torch.zeros(3, 50), 33)
