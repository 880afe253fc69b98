"""Polestar, A-CFG and token-to-mask refinement do what their papers say."""

from __future__ import annotations

import torch
from toy import EOS, MASK, micro, prompts

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.loop import choose
from dlmdecode.decoding.positions import Span
from dlmdecode.samplers.polestar import DRIFT, Drifting
from dlmdecode.samplers.t2m import Suspects

SHAPE = {"max_new_tokens": 16, "block_length": 8, "eos": "ignore"}


def full_block(*tokens: int) -> Canvas:
    """A canvas of one row whose block, all after a prompt of one token, is open."""
    canvas = Canvas.of([torch.tensor([1])], len(tokens), MASK, (EOS,))
    canvas.tokens = torch.tensor([[1, *tokens]])
    canvas.hi = canvas.stop
    return canvas


def test_polestar_takes_early_what_is_fairly_sure_and_has_just_drifted():
    canvas = full_block(MASK, MASK, MASK, MASK, MASK)
    canvas.proposal.prob = torch.tensor([[0, 0.95, 0.8, 0.8, 0.8, 0.6]]).double()
    recipe = dlmdecode.sampler("polestar")

    def chosen() -> list[int]:
        return choose(recipe, canvas)[0].nonzero()[:, 0].tolist()

    assert chosen() == [1]  # nothing is known of the attention yet
    canvas.memory[DRIFT] = torch.tensor([[9.0, 0, 0.11, 0.09, 2.0, 1.0]])
    assert chosen() == [1, 2]  # 10 (0.9 − 0.8)² is 0.1; 2 is too much; 0.6 is not sure enough


def test_drift_is_the_last_divergence_less_the_mean_of_those_before_it():
    canvas, rows = full_block(MASK, MASK), Drifting(micro("llada"))
    block = Span(canvas.lo, canvas.hi)
    looks = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]])

    def drift(*attention: int) -> list[float]:
        now = torch.stack([looks[i] for i in attention])[None, :, None]  # one head
        return rows.drift(canvas, block, now)[0, 1:].tolist()

    def divergence(p: int, q: int) -> float:
        return float((looks[p] * (looks[p] / looks[q]).log()).sum())

    assert drift(0, 0) == [-torch.inf, -torch.inf]
    assert torch.allclose(torch.tensor(drift(1, 0)), torch.tensor([divergence(1, 0), 0]))
    expected = torch.tensor([divergence(0, 1) - divergence(1, 0), divergence(1, 0)])
    assert torch.allclose(torch.tensor(drift(0, 1)), expected)
    canvas.lo = canvas.lo + 1  # another block: all is new
    block = Span(canvas.lo, canvas.hi)
    assert rows.drift(canvas, block, looks[None, :1, None])[0].tolist() == [-torch.inf] * 3


def test_adaptive_guidance_costs_a_second_forward_once_something_is_written():
    out = dlmdecode.generate(micro("llada"), prompts(5, 3), "acfg", **SHAPE)
    assert out.nfe == [2 * 16 - 1] * 2
    plain = dlmdecode.generate(micro("llada"), prompts(5, 3), "vanilla", **SHAPE)
    faint = dlmdecode.generate(
        micro("llada"), prompts(5, 3), "acfg", scale=1e-9, ratio=1e-9, **SHAPE
    )
    assert not torch.equal(out.sequences, plain.sequences)
    assert (faint.sequences == plain.sequences).float().mean() >= (
        out.sequences == plain.sequences
    ).float().mean()


def suspects(detect: str, threshold: float, most: int = 1) -> Suspects:
    (part,) = dlmdecode.sampler(
        "t2m", detect=detect, remask_threshold=threshold, max_post_steps=most
    ).revisions
    return part


def test_suspects_are_masked_the_least_probable_first_and_fewer_than_were_committed():
    canvas = full_block(5, 6, 7, 8, MASK)
    part = suspects("probability", 0.5)
    canvas.memory[part.standing] = torch.tensor([[0.1, 0.4, 0.2, 0.9, 0.3, 0.1]])
    part(canvas, canvas.position == 4)
    assert canvas.tokens.tolist() == [[1, 5, 6, 7, 8, MASK]]  # one was committed: none goes
    part(canvas, (canvas.position == 3) | (canvas.position == 4))
    assert canvas.tokens.tolist() == [[1, 5, MASK, 7, 8, MASK]]


def test_by_trigger_a_token_is_masked_where_editing_would_replace_it():
    canvas = full_block(5, 6, 7)
    part = suspects("trigger", 0.6)
    canvas.memory[part.standing] = torch.tensor([[0.0, 0.1, 0.1, 0.1]])
    canvas.proposal.token = torch.tensor([[1, 5, 9, 9]])
    canvas.proposal.prob = torch.tensor([[0.0, 0.9, 0.7, 0.5]]).double()
    nothing = torch.zeros_like(canvas.block)
    part(canvas, canvas.block)  # the step that fills the block
    assert canvas.held.all()
    part(canvas, nothing)
    assert canvas.tokens.tolist() == [[1, 5, MASK, 7]] and not canvas.held.any()
    canvas.tokens = torch.tensor([[1, 5, 6, 7]])
    part(canvas, canvas.position == 2)
    assert not canvas.held.any()  # it has been looked at as often as was asked for


def test_refinement_that_suspects_nothing_writes_what_the_threshold_does():
    plain = dlmdecode.generate(micro("llada"), prompts(5, 3), "threshold", **SHAPE)
    same = dlmdecode.generate(micro("llada"), prompts(5, 3), "t2m", remask_threshold=0, **SHAPE)
    assert torch.equal(plain.sequences, same.sequences)
