"""The canvas: layout of ragged batches, and the verbs that change it."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, MASK, prompts

from dlmdecode import Canvas, FixedBlocks, Proposal, Span, WholeCanvas
from dlmdecode.parts.remasking import EndOfSequence


def canvas_of(*lengths, length=6):
    canvas = Canvas.of(prompts(*lengths), length, MASK, (EOS, 317))
    canvas.open_blocks(FixedBlocks(4))
    return canvas


def propose(canvas, token):
    canvas.proposal.token = torch.full_like(canvas.tokens, token)


def test_masks_follow_each_prompt_and_padding_follows_the_masks():
    first, second = prompts(5, 2)
    canvas = Canvas.of([first, second], 3, MASK, (EOS,))
    assert canvas.tokens.tolist() == [
        [*first.tolist(), MASK, MASK, MASK],
        [*second.tolist(), MASK, MASK, MASK, EOS, EOS, EOS],
    ]
    assert canvas.masked.sum(1).tolist() == [3, 3]


def test_a_mask_token_behind_the_text_is_not_a_mask_to_fill():
    canvas = canvas_of(5, 2)
    canvas.tokens[1, -1] = MASK
    assert canvas.masked.sum(1).tolist() == [6, 6]


def test_blocks_open_left_to_right_and_the_last_one_may_be_shorter():
    canvas = canvas_of(5, 2)
    assert (canvas.lo.tolist(), canvas.hi.tolist()) == ([5, 2], [9, 6])
    propose(canvas, 1)
    canvas.commit(canvas.open)
    canvas.open_blocks(FixedBlocks(4))
    assert (canvas.lo.tolist(), canvas.hi.tolist()) == ([9, 6], [11, 8])
    assert canvas.block_masks.tolist() == [2, 2]


def test_rows_open_their_blocks_independently():
    canvas = canvas_of(5, 2)
    propose(canvas, 1)
    canvas.commit(canvas.open & torch.tensor([[True], [False]]))
    canvas.open_blocks(FixedBlocks(4))
    assert canvas.lo.tolist() == [9, 2]
    assert canvas.block_step.tolist() == [0, 0]
    assert canvas.step.tolist() == [1, 0]


def test_a_block_without_masks_is_passed_over():
    canvas = Canvas.of(prompts(3), 6, MASK, (EOS,))
    canvas.tokens[0, 3:5] = 1
    canvas.open_blocks(FixedBlocks(2))
    assert (int(canvas.lo), int(canvas.hi)) == (5, 7)


def test_the_whole_canvas_can_be_one_block():
    canvas = Canvas.of(prompts(3, 1), 6, MASK, (EOS,))
    canvas.open_blocks(WholeCanvas())
    assert torch.equal(canvas.open, canvas.masked)


def test_commit_writes_proposals_and_nothing_else():
    canvas = canvas_of(5, 2)
    before = canvas.tokens.clone()
    propose(canvas, 9)
    where = torch.zeros_like(canvas.tokens, dtype=torch.bool)
    where[0, 6] = True
    canvas.commit(where)
    assert canvas.tokens[0, 6] == 9
    assert torch.equal(canvas.tokens[~where], before[~where])


def test_remask_takes_back_what_was_committed():
    canvas = canvas_of(5, 2)
    before = canvas.tokens.clone()
    propose(canvas, 9)
    where = canvas.open
    canvas.commit(where)
    canvas.remask(where)
    assert torch.equal(canvas.tokens, before)


def test_truncate_ends_rows_and_fills_what_lay_behind_with_eos():
    canvas = canvas_of(5, 2)
    canvas.truncate(torch.tensor([7, 100]))
    assert canvas.stop.tolist() == [7, 8]
    assert canvas.tokens[0, 7:].tolist() == [EOS] * 4
    assert canvas.masked.sum(1).tolist() == [2, 6]


@pytest.mark.parametrize("index", [[1], [0, 0, 1], [1, 0]])
def test_take_moves_everything_that_belongs_to_a_row(index):
    canvas = canvas_of(5, 2)
    canvas.memory["part"] = torch.tensor([10, 20])
    canvas.proposal.prob = torch.rand_like(canvas.proposal.prob)
    taken = canvas.take(torch.tensor(index))
    assert len(taken) == len(index)
    assert taken.row.tolist() == index
    assert taken.memory["part"].tolist() == [10 * (i + 1) for i in index]
    for name in (f.name for f in fields(Proposal)):
        mine, theirs = getattr(taken.proposal, name), getattr(canvas.proposal, name)
        assert torch.equal(mine, theirs[index])


def test_what_is_done_to_taken_rows_leaves_the_others_alone():
    canvas = canvas_of(5, 2)
    before = canvas.tokens.clone()
    draft = canvas.take(torch.tensor([0, 0]))
    propose(draft, 9)
    draft.commit(draft.open)
    assert torch.equal(canvas.tokens, before)


def test_an_eos_ends_a_row_only_once_nothing_before_it_is_masked():
    canvas, rule = canvas_of(3, 3), EndOfSequence()
    tokens = canvas.tokens.clone()
    tokens[0, 3:6] = torch.tensor([1, 2, EOS])
    tokens[1, 3:6] = torch.tensor([1, MASK, 317])
    canvas.tokens = tokens
    rule(canvas, torch.zeros_like(canvas.tokens, dtype=torch.bool))
    assert canvas.tokens[0, 3:].tolist() == [1, 2, EOS, EOS, EOS, EOS]
    assert canvas.tokens[1, 3:].tolist() == [1, MASK, 317, MASK, MASK, MASK]
    assert canvas.done.tolist() == [True, False]


def test_an_eos_of_the_prompt_ends_nothing():
    prompt = torch.tensor([1, EOS, 2])
    canvas = Canvas.of([prompt], 4, MASK, (EOS,))
    EndOfSequence()(canvas, canvas.masked)
    assert int(canvas.stop) == 7


spans = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=4)


@settings(deadline=None)
@given(spans)
def test_a_span_lists_its_positions_and_short_rows_repeat_their_last(rows):
    lo = torch.tensor([a for a, _ in rows])
    span = Span(lo, lo + torch.tensor([n for _, n in rows]))
    for (a, n), at in zip(rows, span.at.tolist(), strict=True):
        expected = list(range(a, a + n))
        assert at == expected + [expected[-1]] * (span.width - n)
        inside = span.contains(torch.arange(20).expand(len(rows), 20))
        assert inside.sum(1).tolist() == [n for _, n in rows]


def facts_of(canvas):
    spans = ("text_span", "block_span", "rest_span")
    tensors = [getattr(canvas, name) for name in ("position", "text", "block", "masked", "open")]
    tensors += [canvas.block_full, canvas.done, canvas.survey.rows]
    return tensors + [getattr(canvas, name).at for name in spans]


@pytest.mark.parametrize("name", ["tokens", "start", "stop", "lo", "hi", "row", "branch", "wider"])
def test_an_assignment_forgets_the_facts_that_it_decides(name):
    canvas = canvas_of(5, 2)
    facts_of(canvas)
    if name == "tokens":
        canvas.tokens = canvas.tokens.flip(1)
    elif name == "wider":
        canvas.tokens = torch.cat([canvas.tokens, canvas.tokens[:, :3]], 1)
        canvas.proposal = Proposal(*(torch.zeros_like(canvas.tokens) for _ in range(4)))
    else:
        setattr(canvas, name, getattr(canvas, name) + torch.tensor([1, -1]))
    anew = replace(canvas)
    for kept, computed in zip(facts_of(canvas), facts_of(anew), strict=True):
        assert torch.equal(kept, computed)


def test_what_is_done_to_a_copy_leaves_the_canvas_as_it_was():
    canvas = canvas_of(5, 2)
    before = [fact.clone() for fact in facts_of(canvas)]
    other = canvas.copy()
    propose(other, 9)
    other.commit(other.open)
    other.memory["a"] = other.tokens
    assert not canvas.memory
    assert not torch.equal(other.tokens, canvas.tokens)
    for now, then in zip(facts_of(canvas), before, strict=True):
        assert torch.equal(now, then)
