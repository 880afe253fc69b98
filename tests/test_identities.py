"""Degenerate options reduce a method to its parent, on random profiles and random models."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, MASK, micro, prompts

import dlmdecode
from dlmdecode import ops
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import choose
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import Threshold
from dlmdecode.samplers.entropy_bound import EntropyBound
from dlmdecode.samplers.factor import Factor
from dlmdecode.samplers.frechet import FrechetProfile
from dlmdecode.samplers.hierarchy import RunPeaks
from dlmdecode.samplers.localleap import NearAnchor

profiles = st.lists(
    st.tuples(st.floats(0.01, 0.999), st.booleans()), min_size=2, max_size=24
).filter(lambda profile: any(masked for _, masked in profile))


def canvas_of(profile) -> Canvas:
    """A canvas with these confidences, masked where the flag says so, one open block."""
    length = len(profile)
    canvas = Canvas.of([torch.tensor([1])], length, MASK, (EOS,))
    canvas.lo, canvas.hi = canvas.start, canvas.stop
    prob = torch.tensor([[0.0] + [p for p, _ in profile]], dtype=torch.float64)
    masked = torch.tensor([[False] + [m for _, m in profile]])
    canvas.tokens = torch.where(masked, MASK, 1)
    canvas.proposal.prob = prob
    canvas.proposal.entropy = -(prob * prob.clamp(min=1e-9).log()).float()
    return canvas


def chosen(profile, rule) -> list[bool]:
    return choose(Sampler(select=rule), canvas_of(profile))[0].tolist()


@settings(deadline=None, max_examples=60)
@given(profiles)
def test_rules_that_nothing_can_satisfy_commit_one_token(profile):
    rules = [Threshold(1.1), FrechetProfile(1.1), Factor(0.0), NearAnchor(1.1, 1.1)]
    sets = [chosen(profile, rule) for rule in rules]
    assert sum(sets[0]) == 1
    assert all(other == sets[0] for other in sets)


@settings(deadline=None, max_examples=60)
@given(profiles, st.floats(0.2, 0.95), st.integers(0, 5))
def test_localleap_that_relaxes_nothing_is_threshold(profile, tau, radius):
    assert chosen(profile, NearAnchor(tau, tau, radius)) == chosen(profile, Threshold(tau))
    assert chosen(profile, NearAnchor(tau, tau / 2, 0)) == chosen(profile, Threshold(tau))


@settings(deadline=None, max_examples=100)
@given(profiles, st.floats(0.05, 0.95))
def test_the_frechet_prefix_contains_the_matched_factor_prefix(profile, delta):
    wide = chosen(profile, FrechetProfile(delta - 1e-9))
    narrow = chosen(profile, Factor(1 - delta))
    assert all(w or not n for w, n in zip(wide, narrow, strict=True))


@settings(deadline=None, max_examples=60)
@given(profiles)
def test_an_entropy_budget_of_nothing_commits_one_token(profile):
    assert sum(chosen(profile, EntropyBound(0.0))) == 1


@settings(deadline=None, max_examples=60)
@given(profiles, st.floats(0.2, 0.95))
def test_a_hierarchy_without_low_bar_is_a_strict_threshold(profile, tau):
    just_above = math.nextafter(tau, 1)
    assert chosen(profile, RunPeaks(tau, 1.1)) == chosen(profile, Threshold(just_above))


@settings(deadline=None, max_examples=60)
@given(profiles, st.floats(0.3, 0.99), st.floats(0.05, 0.3))
def test_every_run_of_masks_is_split_at_its_surest_position(profile, high, low):
    canvas = canvas_of(profile)
    where = choose(Sampler(select=RunPeaks(high, low)), canvas)[0]
    open, prob = canvas.open[0].tolist(), canvas.proposal.prob[0].tolist()
    runs, run = [], []
    for position, masked in enumerate([*open, False]):
        if masked:
            run.append(position)
        elif run:
            runs, run = [*runs, run], []
    for members in runs:
        best = max(members, key=lambda i: (prob[i], -i))
        assert bool(where[best]) >= (prob[best] > low)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_methods_with_degenerate_options_write_their_parents_text(family):
    model, rows = micro(family), prompts(5, 8)
    ids = (194, 84, 191)

    def text(recipe, **more):
        shape = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore"}
        return dlmdecode.generate(model, rows, recipe, **shape, **more).sequences.tolist()

    one_by_one = text("vanilla")
    assert text("threshold", threshold=1.0) == one_by_one
    assert text("frechet", delta=1.0) == one_by_one
    assert text("factor", factor=0.0) == one_by_one
    assert text("freedave") == one_by_one
    assert text("freedave", draft_steps=1) == one_by_one
    assert text("eoser", gamma_min=1.0) == one_by_one
    plain = text("threshold", threshold=0.6)
    assert plain != one_by_one
    assert text("credit", alpha=0.0, threshold=0.6) == plain
    never = {"delimiters": ids, "delimiter_threshold": 1.0}
    assert text("adablock", threshold=0.6, **never) == plain
    assert text("prophet+threshold", threshold=0.6, early=1e9, mid=1e9, late=1e9) == plain


def test_equal_logits_give_the_lowest_token_and_the_lowest_position():
    proposed = ops.propose(torch.zeros(3, 7), exclude=0)
    assert proposed.token.tolist() == [1, 1, 1]
    canvas = canvas_of([(0.5, True)] * 6)
    assert choose(Sampler(select=Threshold(1.1)), canvas)[0].tolist() == [False, True] + [False] * 5


def test_an_early_stop_never_changes_a_token_before_the_eos():
    model, rows = micro("llada"), prompts(5, 8, 3, 6)
    shape = {"max_new_tokens": 48, "block_length": 8}
    whole = dlmdecode.generate(model, rows, "threshold", threshold=0.5, eos="ignore", **shape)
    ended = dlmdecode.generate(model, rows, "threshold", threshold=0.5, eos="stop", **shape)
    for i, prompt in enumerate(rows):
        end = len(prompt) + ended.new_tokens[i]
        assert torch.equal(whole.sequences[i, :end], ended.sequences[i, :end])
        assert (ended.sequences[i, end:] == EOS).all()


@pytest.mark.parametrize("name", ["threshold", "credit"])
def test_a_threshold_that_nothing_reaches_writes_one_token_a_step(name):
    how = dict(max_new_tokens=16, block_length=8, eos="ignore", threshold=2.0)
    out = dlmdecode.generate(micro("llada"), prompts(5), name, **how)
    assert out.nfe == [16]
