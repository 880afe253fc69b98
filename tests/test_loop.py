"""The loop against a plain one written out for a single row, and its promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import EOS, FAMILIES, MASK, LogitsModule, altered, fond_of, micro, prompts

import dlmdecode
from dlmdecode import Canvas, FixedBlocks, Sampler
from dlmdecode.caches import Recompute
from dlmdecode.decoding.loop import denoise
from dlmdecode.decoding.parts import Selection


@torch.inference_mode()
def plainly(model, prompt, length, block_length, threshold):
    """Threshold decoding of one row in the most literal way."""
    tokens = torch.cat([prompt, torch.full((length,), MASK)])
    nfe = 0
    for lo in range(len(prompt), len(tokens), block_length):
        hi = min(lo + block_length, len(tokens))
        while (tokens[lo:hi] == MASK).any():
            logits = model(tokens[None])[0]
            logits = logits.roll(model.shift, 0) if model.shift else logits
            nfe += 1
            prob = logits.softmax(-1)
            prob[:, MASK] = 0
            best, token = prob.max(-1)
            best[tokens != MASK] = -1
            best[:lo], best[hi:] = -1, -1
            where = best >= threshold
            where[best.argmax()] = True
            tokens[where] = token[where]
    return tokens.tolist(), nfe


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(
    prompt_length=st.integers(1, 9),
    length=st.integers(1, 20),
    block_length=st.integers(1, 24),
    threshold=st.floats(0.05, 1.0),
    seed=st.integers(0, 99),
)
def test_the_loop_does_what_a_plain_loop_does(
    family, prompt_length, length, block_length, threshold, seed
):
    (prompt,) = prompts(prompt_length, seed=seed)
    block_length = min(block_length, length)
    out = dlmdecode.generate(
        micro(family),
        prompt,
        threshold=threshold,
        max_new_tokens=length,
        block_length=block_length,
        eos="ignore",
    )
    expected, nfe = plainly(micro(family), prompt, length, block_length, threshold)
    assert out.sequences[0].tolist() == expected
    assert out.nfe == [nfe]


class Never(Selection):
    """A selection rule that names nothing."""

    def __call__(self, canvas):
        return torch.zeros_like(canvas.masked)


class Everything(Selection):
    """A selection rule that names every position, the prompt and the padding too."""

    def __call__(self, canvas):
        return torch.ones_like(canvas.masked)


def run(select, *lengths, length=8):
    """Decode with a selection rule; the canvas after each step, and the final sequences."""
    model = micro("llada")
    canvas = Canvas.of(prompts(*lengths), length, model.mask_id, model.eos_ids)
    sampler = Sampler(select=select, blocks=FixedBlocks(4))
    states = list(denoise(Recompute(model), canvas, sampler))
    return canvas, states


def test_a_rule_that_names_nothing_still_commits_one_token_a_step():
    canvas, states = run(Never(), 4)
    assert len(states) == 8
    assert [int(state.masked.sum()) for state in states] == list(range(7, -1, -1))


def test_a_rule_can_only_write_in_its_open_block():
    canvas, states = run(Everything(), 5, 2)
    assert len(states) == 2
    for state in states:
        assert torch.equal(state.tokens[0, :5], canvas.tokens[0, :5])
        assert torch.equal(state.tokens[1, :2], canvas.tokens[1, :2])
        assert (state.tokens[1, 10:] == EOS).all()
    assert states[0].masked.sum(1).tolist() == [4, 4]


def test_finished_rows_leave_the_batch_and_cost_no_forward():
    model = micro("llada")
    one, other = prompts(3, 3)
    out = dlmdecode.generate(
        model, [one, other], sampler="threshold", threshold=0.3, max_new_tokens=16, block_length=8
    )
    assert out.stats["forward_rows"] == sum(out.nfe)
    assert out.stats["nfe"] == max(out.nfe)


def test_the_mask_token_is_never_written_even_where_the_model_likes_it_best():
    out = dlmdecode.generate(
        fond_of(micro("llada"), MASK, 100.0), prompts(4), max_new_tokens=12, block_length=4
    )
    assert MASK not in out.sequences.tolist()[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrapped", [True, False])
def test_logits_that_are_no_numbers_name_the_step_and_the_row(value, wrapped):
    calls = []

    def spoil(logits):
        calls.append(1)
        logits = logits.clone()
        if len(calls) == 3:
            logits[1] = value
        return logits

    model = micro("llada")
    model = dlmdecode.wrap(LogitsModule(model, spoil)) if wrapped else altered(model, spoil)
    with pytest.raises(FloatingPointError, match="(?=.*step 3)(?=.*row 1)"):
        dlmdecode.generate(
            model, prompts(4, 4), sampler="vanilla", max_new_tokens=8, block_length=8
        )


def test_a_single_banned_token_is_no_error():
    def ban(logits):
        logits = logits.clone()
        logits[..., 7] = -torch.inf
        return logits

    out = dlmdecode.generate(
        altered(micro("llada"), ban), prompts(4), max_new_tokens=8, block_length=8
    )
    assert 7 not in out.sequences[0, 4:].tolist()
