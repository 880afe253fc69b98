"""Every selection rule against its definition, on ragged canvases."""

from __future__ import annotations

import pytest
import torch
from by_hand import chosen_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, MASK

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import choose
from dlmdecode.decoding.parts import Score
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.select import EvenQuota, Threshold, TopK
from dlmdecode.samplers.entropy_bound import EntropyBound
from dlmdecode.samplers.factor import Factor
from dlmdecode.samplers.frechet import FrechetProfile
from dlmdecode.samplers.localleap import NearAnchor

RULES = {
    "topk": (TopK(EvenQuota(6)), {}),
    "threshold": (Threshold(0.7), {"threshold": 0.7}),
    "factor": (Factor(0.9), {"factor": 0.9}),
    "frechet": (FrechetProfile(0.2), {"delta": 0.2}),
    "entropy_bound": (EntropyBound(0.8), {"gamma": 0.8}),
    "relaxed": (NearAnchor(0.8, 0.5, 2), {"threshold": 0.8, "relaxed": 0.5, "radius": 2}),
}


def half_written(seed: int) -> Canvas:
    """Three rows at different places, tied confidences, the last row's block full."""
    generator = torch.Generator().manual_seed(seed)
    canvas = Canvas.of([torch.full((n,), 1) for n in (1, 4, 2)], 14, MASK, (EOS,))
    canvas.lo = canvas.start + torch.tensor([0, 3, 5])
    canvas.hi = (canvas.lo + torch.tensor([14, 8, 4])).minimum(canvas.stop)
    shape = canvas.tokens.shape
    written = torch.rand(shape, generator=generator) < 0.3
    written[2] |= canvas.block[2]
    canvas.tokens = torch.where(written, 1, canvas.tokens)
    canvas.block_step = torch.tensor([0, 1, 2])
    prob = torch.rand(shape, generator=generator, dtype=torch.float64).mul(10).round() / 10
    canvas.proposal.prob = prob
    canvas.proposal.entropy = torch.rand(shape, generator=generator) + 1e-3
    return canvas


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_rule_chooses_by_its_definition_and_changes_nothing(name, seed):
    rule, how = RULES[name]
    canvas = half_written(seed)
    before = canvas.tokens.clone()
    chosen = choose(Sampler(select=rule), canvas)
    assert torch.equal(canvas.tokens, before)
    for row, open in enumerate(canvas.open):
        at = open.nonzero().flatten().tolist()
        confidence = {i: canvas.proposal.prob[row, i].item() for i in at}
        lo, hi = (int(end[row] - canvas.start[row]) for end in (canvas.lo, canvas.hi))
        left = hi * 6 // 14 - lo * 6 // 14 - int(canvas.block_step[row])
        quota = -(-len(at) // max(left, 1))
        entropy = canvas.proposal.entropy[row].tolist()
        expected = chosen_by_hand(name, confidence, entropy, quota, how)
        assert set(chosen[row].nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("score", ["negative", "float32"])
def test_scores_need_not_be_probabilities_nor_double(score):
    class Shifted(Score):
        def __call__(self, confidence, canvas):
            shifted = confidence - 5
            return shifted.float() if score == "float32" else shifted

    canvas = half_written(0)
    plain = choose(Sampler(select=TopK(EvenQuota(3))), canvas)
    shifted = choose(Sampler(select=TopK(EvenQuota(3)), scores=(Shifted(),)), canvas)
    assert plain.any() and torch.equal(plain, shifted)


def test_a_quota_of_everything_takes_positions_without_any_confidence_too():
    class Banned(Score):
        def __call__(self, confidence, canvas):
            return torch.where(canvas.position % 2 == 0, -torch.inf, confidence)

    canvas = half_written(1)
    chosen = choose(Sampler(select=TopK(EvenQuota(1)), scores=(Banned(),)), canvas)
    assert torch.equal(chosen, canvas.open)
