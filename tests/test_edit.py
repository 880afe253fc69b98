"""Token editing: a full block is looked at again, and what no longer holds is replaced."""

from __future__ import annotations

import torch
from toy import EOS, MASK, fond_of, micro, prompts

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.samplers.edit import Edits

SHAPE = {"max_new_tokens": 16, "threshold": 0.4, "editing_threshold": 0.2, "eos": "ignore"}


def full(*tokens: int) -> Canvas:
    """A canvas of one row whose block, all after a prompt of one token, is written."""
    canvas = Canvas.of([torch.tensor([1])], len(tokens), MASK, (EOS,))
    canvas.tokens[0, 1:] = torch.tensor(tokens)
    canvas.hi = canvas.stop
    canvas.proposal.token = torch.tensor([[9, 9, 9, tokens[2]]])
    canvas.proposal.prob = torch.tensor([[1.0, 0.9, 0.4, 1.0]]).double()
    return canvas


def test_a_token_is_replaced_where_the_model_is_surer_of_another():
    canvas = full(5, 6, 7)
    Edits(0.5, 4)(canvas, torch.zeros_like(canvas.block))
    assert canvas.tokens.tolist() == [[1, 9, 6, 7]]  # the prompt stays, 0.4 is not sure
    assert canvas.held.tolist() == [True] and not canvas.done.any()


def test_what_this_step_wrote_and_what_is_masked_are_left_alone():
    canvas = full(5, 6, MASK)
    Edits(0.0, 4)(canvas, canvas.position == 1)
    assert canvas.tokens.tolist() == [[1, 5, 9, MASK]]
    assert not canvas.held.any()  # it is open anyway


def test_a_block_is_released_when_nothing_changes_or_after_the_most_forwards():
    canvas, rule, none = full(5, 6, 7), Edits(0.5, 2), torch.zeros(1, 4, dtype=torch.bool)
    rule(canvas, canvas.block)  # the step that fills it
    assert canvas.held.all()
    rule(canvas, none)
    assert canvas.held.all()
    canvas.proposal.token[0, 1] = 8  # it changes its mind in every step
    rule(canvas, none)
    assert not canvas.held.any() and canvas.done.all()
    canvas = full(9, 6, 7)
    rule(canvas, none)
    assert not canvas.held.any()


def test_no_forward_of_a_full_block_is_the_rule_on_open_blocks_alone():
    rows, model = prompts(5, 2, 9), micro("llada")
    out = dlmdecode.generate(model, rows, "edit", max_post_steps=0, **SHAPE)
    assert max(out.nfe) <= 16
    more = dlmdecode.generate(model, rows, "edit", max_post_steps=9, **SHAPE)
    assert sum(more.nfe) > sum(out.nfe)


def test_a_text_ends_at_an_eos_only_when_its_block_is_released():
    model, (prompt,) = fond_of(micro("llada"), EOS, 4.5), prompts(5)
    out = dlmdecode.generate(model, prompt, "edit", trace=True, **(SHAPE | {"eos": "stop"}))
    held = [bool(step.held[0]) for step in out.trace.steps]
    assert any(held) and not held[-1]
    ends = out.sequences[0, 5:].tolist()
    assert EOS in ends and set(ends[ends.index(EOS) :]) == {EOS}


def test_a_streamer_gets_a_block_when_it_is_released():
    class Streamer:
        def __init__(self):
            self.ids = []

        def put(self, value):
            self.ids += value.flatten().tolist()

        def end(self):
            pass

    shown, (prompt,) = Streamer(), prompts(5)
    out = dlmdecode.generate(micro("llada"), prompt, "edit", streamer=shown, **SHAPE)
    assert shown.ids == out.sequences[0].tolist()


def test_editing_works_over_any_rule_that_remembers_nothing():
    recipe = dlmdecode.sampler("edit+hierarchy")
    assert isinstance(recipe, Sampler) and recipe.takes_back and recipe.reads_committed
    out = dlmdecode.generate(micro("dream"), prompts(4, 7), recipe, max_new_tokens=16)
    assert not (out.sequences == MASK).any()
