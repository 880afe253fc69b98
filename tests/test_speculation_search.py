"""Lattices, the path search against all paths, draft lengths."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode import ops
from dlmdecode.speculation.cut_length import resolve_length
from dlmdecode.speculation.diffuspec.counting import build
from dlmdecode.speculation.diffuspec.lattice import Lattice, TopM, candidates
from dlmdecode.speculation.diffuspec.lattice_tree import resolve_search
from dlmdecode.speculation.diffuspec.path_search import (
    BestTokens,
    PathSearch,
    fused,
    last,
    search,
)
from dlmdecode.speculation.draft_length import AdaptiveLength, FixedLength

EOS = (9,)
seeds = st.integers(0, 10**6)


def random_top(seed, length=4, size=10, num=4, sharp=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(length, size, generator=generator)
    log_prob, ids = logits.log_softmax(-1).topk(num)
    return TopM(ids, log_prob)


def random_ngram(seed):
    generator = torch.Generator().manual_seed(seed)
    return build(torch.randint(0, 10, (5, 20), generator=generator).tolist(), vocab_size=10)


def score_of(path, top, prefix, ngram, lam):
    total = 0.0
    for i, token in enumerate(path):
        own = top.log_prob[i][top.ids[i] == token].double().sum()
        context = np.array([last(prefix + list(path[:i]), 2)])
        total += lam * own + (1 - lam) * ngram.log_prob(context, np.array([token]))[0, 0]
    return float(total)


@given(seeds, st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_a_wide_beam_finds_the_best_of_all_paths(seed, lam):
    top, ngram, prefix = random_top(seed, length=3, num=3), random_ngram(seed), [1, 2]
    lattice = candidates(top, 1.0, EOS)
    path, score = search(lattice, prefix, ngram, 10**4, lam, EOS)
    sets = [ids[:n].tolist() for ids, n in zip(lattice.ids, lattice.count, strict=True)]
    every = [score_of(one, top, prefix, ngram, lam) for one in product(*sets)]
    assert score == pytest.approx(max(every), abs=1e-4)
    assert score_of(path, top, prefix, ngram, lam) == pytest.approx(score, abs=1e-4)


@pytest.mark.skipif(not ops.is_available(), reason="the extension was not built")
@given(seeds, st.floats(0, 1), st.integers(1, 5), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_the_op_finds_the_same_path_as_python(seed, lam, beam, known):
    top, ngram = random_top(seed, length=8, num=6), random_ngram(seed)
    lattice, prefix = candidates(top, 0.95, EOS), [1, 2][:known]
    path, score = search(lattice, prefix, ngram, beam, lam, EOS)
    same, close = fused(lattice, prefix, ngram, beam, lam, EOS)
    assert (same, close) == (path, pytest.approx(score, abs=1e-5))


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_a_beam_of_one_without_proxy_is_the_best_token_of_each_position(seed):
    top = random_top(seed)
    path = PathSearch(beam=1, lam=1.0)(top, [1, 2], random_ngram(0), EOS)
    assert path == BestTokens()(top, [1, 2], random_ngram(0), EOS)


@given(seeds, st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_candidates_are_the_fewest_best_tokens_of_the_mass(seed, mass):
    top = random_top(seed, size=30, num=8)
    lattice = candidates(top, mass, eos_ids=())
    for ids, log_prob, count, best, own in zip(
        lattice.ids, lattice.log_prob, lattice.count, *top, strict=True
    ):
        assert torch.equal(ids[:count], best[:count])
        probability = own.double().exp()
        assert count == 8 or probability[:count].sum() >= mass
        assert probability[: count - 1].sum() < mass
        assert torch.equal(log_prob[:count], own[:count])


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_all_paths_of_a_lattice_have_one_length_whatever_eos_does(seed):
    top = random_top(seed, size=10, num=6)
    lattice = candidates(top, 0.9, EOS)
    best_eos = [i for i, ids in enumerate(top.ids.tolist()) if ids[0] in EOS]
    assert len(lattice) == (best_eos[0] + 1 if best_eos else len(top.ids))
    for ids, count in list(zip(lattice.ids, lattice.count, strict=True))[:-1]:
        assert count >= 1 and EOS[0] not in ids[:count]
    path, _ = search(lattice, [], random_ngram(1), 3, 0.5, EOS)
    assert len(path) == len(lattice)


def test_a_forbidden_token_is_no_candidate():
    top = TopM(torch.tensor([[3, 4, 5]]), torch.tensor([[-0.1, -3.0, -torch.inf]]))
    assert candidates(top, 1.0, EOS).count.tolist() == [2]


def test_a_finished_path_keeps_its_score_and_competes():
    lattice = Lattice(
        torch.tensor([[9, 1], [2, 3]]),
        torch.tensor([[-1.0, -0.5], [-1.0, -2.0]]),
        torch.tensor([2, 2]),
    )
    path, score = search(lattice, [0], random_ngram(0), 3, 1.0, EOS)
    assert (path, score) == ([9], -1.0)


def test_where_each_position_has_one_candidate_the_proxy_is_not_asked():
    top = TopM(torch.tensor([[5, 2], [9, 3]]), torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log())
    assert PathSearch(mass=0.8)(top, [0, 1], proxy=None, eos_ids=EOS) == [5, 9]


def test_the_proxy_changes_the_path():
    ngram = build([[1, 2, 3]] * 9, vocab_size=10)
    top = TopM(torch.tensor([[5, 2], [6, 3]]), torch.tensor([[0.5, 0.4], [0.5, 0.4]]).log())
    assert PathSearch(mass=1.0)(top, [0, 1], ngram, EOS) == [2, 3]
    assert PathSearch(mass=1.0, lam=1.0)(top, [0, 1], ngram, EOS) == [5, 6]


def test_a_text_shorter_than_the_context_begins_with_begin():
    assert last([5], 3) == [-1, -1, 5]
    assert last([5, 6, 7, 8], 2) == [7, 8]
    assert last([5], 0) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_adaptive_lengths_stay_in_their_bounds_and_follow_drafts_nobody_accepts(history):
    rule = AdaptiveLength(k_min=2, k_max=12, delta=3)
    assert rule.length == 12
    for generated, accepted in history:
        rule.update(generated, min(generated, accepted))
        assert 2 <= rule.length <= 12
    for _ in range(10):
        rule.update(8, 0)
    assert rule.length in (7, 8)  # the average of the drafts, without delta


def test_a_rule_starts_over_for_every_text():
    rule = AdaptiveLength(k_min=1, k_max=5)
    rule.update(1, 0)
    fresh = rule.start()
    assert (rule.length, fresh.length, fresh.generated) == (1, 5, 0.0)


@pytest.mark.parametrize(
    "arguments, name",
    [({"k_min": -1}, "k_min"), ({"k_min": 9, "k_max": 5}, "k_min"), ({"rho": 0}, "rho")],
)
def test_bad_settings_of_the_adaptive_length_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        AdaptiveLength(**arguments)


@pytest.mark.parametrize("length", [-1, 2.5, "long", None, True])
def test_a_bad_draft_length_is_named(length):
    with pytest.raises(ValueError, match="draft_length"):
        resolve_length(length)


def test_a_number_is_a_fixed_length():
    rule = resolve_length(7)
    rule.update(3, 3)
    assert rule == FixedLength(7)


@pytest.mark.parametrize(
    "arguments", [{"beam": 0}, {"lam": 1.5}, {"mass": 0}, {"num_candidates": 0}]
)
def test_bad_settings_of_the_search_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        PathSearch(**arguments)


def test_an_unknown_search_is_named():
    with pytest.raises(ValueError, match="path_search='beam'"):
        resolve_search("beam")
