"""Infilling: what is given never changes, gaps are counted alone, each ends for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_samplers import BLOCK, caches_of, options
from toy import BLOCK_CAUSAL, EOS, FAMILIES, MASK, LogitsModule, fond_of, micro, prompts, talking

import dlmdecode

HIDING = {"slowfast"}
SAMPLERS = [name for name in dlmdecode.list_samplers() if name not in HIDING]
CASES = [  # each with one of its caches, in turn; with the others they are slow
    pytest.param(name, cache, marks=() if i % 3 == j else pytest.mark.slow)
    for i, name in enumerate(SAMPLERS)
    for j, cache in enumerate(caches_of(name))
]
SHAPE = {"block_length": BLOCK, "eos": "ignore"}


def with_gaps(seed: int, *pieces: int) -> torch.Tensor:
    """Given tokens and gaps in turn, of these lengths."""
    row = prompts(sum(pieces), seed=seed)[0]
    ends = torch.tensor(pieces).cumsum(0)
    for i in range(1, len(pieces), 2):
        row[ends[i - 1] : ends[i]] = MASK
    return row


ROWS = [with_gaps(0, 4, 9, 5, 3, 6), with_gaps(1, 6, 2, 1, 8)]


def run(sampler, rows, model=None, **more):
    more = SHAPE | options(sampler) | more
    return dlmdecode.generate(model or micro("llada"), rows, sampler, infill=True, **more)


@pytest.mark.parametrize("sampler, cache", CASES)
def test_what_is_given_never_changes_and_each_row_equals_its_single_run(sampler, cache):
    how = {"model": fond_of(micro("llada"), EOS, 2.0), "cache": cache, "eos": "stop"}
    batch = run(sampler, ROWS, **how)
    for i, row in enumerate(ROWS):
        own = batch.sequences[i, : len(row)]
        assert torch.equal(own[row != MASK], row[row != MASK]) and not (own == MASK).any()
        alone = run(sampler, row, **how)
        assert torch.equal(own, alone.sequences[0]) and batch.nfe[i] == alone.nfe[0]


@pytest.mark.parametrize(
    "sampler, cache",
    [
        ("threshold", "none"),
        ("threshold", "prefix"),
        ("klass", "dual"),
        ("adablock+freedave", "dual"),
        ("dream", "none"),
    ],
)
def test_so_it_is_with_shifted_logits_ends_and_a_suffix_window(sampler, cache):
    model = fond_of(micro("dream"), EOS, 3.0)
    more = options(sampler) | {"cache": cache, "block_length": BLOCK, "steps": None}
    if sampler != "dream":
        more |= {"suffix": 2}
    batch = dlmdecode.generate(model, ROWS, sampler, infill=True, **more)
    for i, row in enumerate(ROWS):
        own = batch.sequences[i, : len(row)]
        assert torch.equal(own[row != MASK], row[row != MASK]) and not (own == MASK).any()
        alone = dlmdecode.generate(model, row, sampler, infill=True, **more)
        assert torch.equal(own, alone.sequences[0]) and batch.nfe[i] == alone.nfe[0]


def plainly(model, row, block_length, threshold, scale) -> tuple[list[int], int]:
    """Threshold decoding of the masks of one row, in blocks of so many of them."""
    tokens, nfe = row.clone(), 0
    given = row != MASK
    for at in (row == MASK).nonzero()[:, 0].split(block_length):
        while (tokens[at] == MASK).any():
            logits, free = model(torch.stack([tokens, tokens.masked_fill(given, MASK)]))
            logits = free + (1 + scale) * (logits - free) if scale else logits
            logits = logits.roll(model.shift, 0) if model.shift else logits
            nfe += 1
            prob = logits.softmax(-1)
            prob[:, MASK] = 0
            best, token = prob.max(-1)
            open = torch.zeros_like(best, dtype=torch.bool)
            open[at] = tokens[at] == MASK
            best[~open] = -1
            where = best >= threshold
            where[best.argmax()] = True
            tokens[where] = token[where]
    return tokens.tolist(), nfe


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 7), min_size=2, max_size=7),
    block_length=st.integers(1, 12),
    threshold=st.floats(0.05, 1.0),
    scale=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 99),
)
def test_blocks_count_gaps_only_and_the_loop_does_what_a_plain_loop_does(
    family, pieces, block_length, threshold, scale, seed
):
    row = with_gaps(seed, *pieces)
    block_length = min(block_length, int((row == MASK).sum()))
    how = {"block_length": block_length, "threshold": threshold, "eos": "ignore"}
    how |= {"cfg_scale": scale}
    out = dlmdecode.generate(micro(family), row, infill=True, **how)
    expected, nfe = plainly(micro(family), row, block_length, threshold, scale)
    assert out.sequences[0].tolist() == expected and out.nfe == [nfe]


def test_an_end_token_ends_its_own_gap_only():
    model = fond_of(micro("llada"), EOS, 5.0)
    row = with_gaps(0, 4, 9, 5, 8, 6)
    out = dlmdecode.generate(model, row, "vanilla", infill=True, block_length=None)
    ends = (out.sequences[0] == EOS).nonzero()[:, 0].tolist()
    first, second = [at for at in ends if at < 13], [at for at in ends if at >= 13]
    assert first == list(range(first[0], 13)) and second == list(range(second[0], 26))
    assert out.new_tokens == [first[0] - 4 + second[0] - 18]
    assert torch.equal(out.sequences[0][row != MASK], row[row != MASK])


def test_an_end_token_that_is_given_ends_nothing():
    row = with_gaps(0, 4, 6, 5, 6)
    row[1] = row[12] = EOS
    out, plain = (run("threshold", row, eos=eos) for eos in ("stop", "ignore"))
    assert EOS not in plain.sequences[0][row == MASK]
    assert torch.equal(out.sequences, plain.sequences) and out.new_tokens == [12]


def test_a_gap_at_the_end_is_what_generate_writes_there():
    prompt = prompts(7)[0]
    row = torch.cat([prompt, torch.full((16,), MASK)])
    how = {"block_length": BLOCK, **options("threshold")}
    plain = dlmdecode.generate(micro("llada"), prompt, max_new_tokens=16, **how)
    out = dlmdecode.generate(micro("llada"), row, infill=True, **how)
    assert torch.equal(out.sequences, plain.sequences) and out.nfe == plain.nfe


def test_pieces_are_texts_gaps_and_ids_and_the_result_has_each_gap():
    pieces = ["w5 w6", 3, 2, "w7", "w8", torch.tensor([9]), 4, "w1"]
    out = dlmdecode.infill(talking(), pieces, eos="ignore")
    words, gaps = out.texts[0].split(), [gap.split() for gap in out.gaps[0]]
    assert [len(gap) for gap in gaps] == [5, 4] and out.new_tokens == [9]
    assert words == ["w5", "w6", *gaps[0], "w7", "w8", "w9", *gaps[1], "w1"]
    ids = torch.tensor([5, 6, *[MASK] * 5, 7, 8, 9, *[MASK] * 4, 1])
    same = dlmdecode.generate(talking(), ids, infill=True, eos="ignore")
    assert torch.equal(same.sequences, out.sequences) and same.gaps == out.gaps


def test_batches_of_pieces_texts_of_one_prompt_and_places_that_are_taken_over():
    rows = [[3, "w5"], ["w1 w2", 8, "w3"], ["w4", 2, "w9", 2]]
    how = {"temperature": 2.0, "seed": 4, "eos": "ignore"}
    batch = dlmdecode.infill(talking(), rows, batch_size=2, **how)
    for i, row in enumerate(rows):
        alone = dlmdecode.infill(talking(), row, **how)
        assert alone.texts == [batch.texts[i]] and alone.gaps == [batch.gaps[i]]
    twice = dlmdecode.infill(talking(), rows[1], num_return_sequences=2, **how)
    assert twice.texts[0] == batch.texts[1] != twice.texts[1]


def test_a_model_without_tokenizer_and_a_foreign_module_fill_gaps():
    row = ROWS[0]
    out = run("threshold", row)
    assert out.texts is None and out.gaps is None
    wrapped = dlmdecode.generate(
        LogitsModule(micro("llada")), row, infill=True, **SHAPE, **options("threshold")
    )
    assert torch.equal(wrapped.sequences, out.sequences)


def test_steps_show_what_is_left_to_write():
    steps = list(dlmdecode.stream(micro("llada"), ROWS[1], "vanilla", infill=True, **SHAPE))
    assert [int(step.masks_left[0]) for step in steps] == list(range(9, -1, -1))
    assert all(step.length.tolist() == [10] for step in steps)


@pytest.mark.parametrize(
    "more, says",
    [
        ({"max_new_tokens": 4}, "max_new_tokens=4: beside gaps texts have"),
        ({"length": "daedal,initial=2"}, "length=.daedal.*beside gaps"),
        ({"stop_strings": "w1"}, "stop_strings=.*goes on behind"),
        ({"suffix": 2, "suffix_tail": 1}, "suffix_tail=1: .*seen anyway"),
        ({"cfg_scale": 1.0, "negative_prompt": "w1"}, "negative_prompt='w1': .*no prompt alone"),
        ({"sampler": "slowfast"}, "infill=True: CutBehind hides"),
        ({"block_length": 9}, "block_length=9: .*has max_new_tokens=3"),
        ({"streamer": talking}, "streamer="),
        ({"attention_mask": [1]}, "attention_mask=.*leave it out"),
    ],
)
def test_what_does_not_go_together_with_gaps_is_refused(more, says):
    with pytest.raises(ValueError, match=says):
        dlmdecode.infill(talking(), ["w5", 3, "w6"], **more)


@pytest.mark.parametrize(
    "pieces, says",
    [
        ("w5 w6", "pieces='w5 w6': give a list"),
        ([], "pieces="),
        (["w5", "w6"], "prompt=.*nothing is to be written"),
        (["w5", 0], "pieces=0"),
        (["w5", 2.5], "pieces=2.5"),
        (["w5", True], "pieces=True"),
        (["w5", [1, 2], 3], "pieces=.*1-D tensors"),
        (["w5", {"role": "user"}, 3], "pieces="),
        ([["w5", 2], ["w5"]], "row 1"),
        (["w5", 3000, "w6"], "pieces=3000: the model addresses"),
        ([10**15], f"pieces={10**15}: the model addresses"),
        (["w5", *[400] * 7, "w6"], "row 0='2802 tokens'"),
    ],
)
def test_pieces_that_are_none_are_refused_with_the_fix(pieces, says):
    with pytest.raises(ValueError, match=says):
        dlmdecode.infill(talking(), pieces)


def test_models_that_do_not_see_behind_a_gap_are_refused():
    for model in map(micro, BLOCK_CAUSAL):
        row = torch.tensor([1, 2, model.mask_id, 3])
        with pytest.raises(ValueError, match="infill=True: the model's attention is causal"):
            dlmdecode.generate(model, row, infill=True)


def test_a_gap_needs_a_token_before_it_where_logits_are_shifted():
    with pytest.raises(ValueError, match="needs a token before a gap"):
        run("threshold", torch.tensor([MASK, 1, 2]), micro("dream"), block_length=1)


def test_masks_in_a_prompt_are_refused_without_infill():
    with pytest.raises(ValueError, match="remove it, or use generate"):
        dlmdecode.generate(micro("llada"), ROWS[0])


def test_texts_for_which_the_sampler_would_be_another_one_are_refused():
    with pytest.raises(ValueError, match="max_new_tokens=2.*all texts share it"):
        rows = [with_gaps(0, 2, 70, 3), with_gaps(1, 3, 2, 3)]
        dlmdecode.generate(micro("llada"), rows, "vanilla", steps=2, infill=True)


def test_pieces_of_ids_come_in_any_kind():
    ids = [5, 6, 7]
    wanted = dlmdecode.infill(micro("llada"), [torch.tensor(ids), 4]).sequences
    for kind in (np.array(ids), torch.tensor(ids, dtype=torch.uint16)):
        assert torch.equal(dlmdecode.infill(micro("llada"), [kind, 4]).sequences, wanted)
    for bad in (b"x", None, 1.5):
        with pytest.raises(ValueError, match="^pieces=.*give texts, lengths of gaps"):
            dlmdecode.infill(micro("llada"), [bad, 4])
