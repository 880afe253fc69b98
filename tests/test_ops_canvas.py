"""`ops.survey`, `ops.put` and `ops.choose`: the kernels against plain torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_inputs import MASK, canvases, needs_extension, reference, refuses_nonsense
from torch.library import opcheck

from dlmdecode import ops

SEEDS = st.integers(0, 10**6)
EOS = torch.tensor([3, 7])


def surveyed(seed):
    tokens, proposed, _, lo, hi = canvases(seed)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 5, (3,), generator=generator)
    stop = start + torch.randint(0, 11, (3,), generator=generator)
    held = torch.rand(3, generator=generator) < 0.5
    return tokens, proposed, held, [start + 7, start % 2, start, stop, lo, hi], EOS, MASK


def placed(seed, width=5):
    generator = torch.Generator().manual_seed(seed)

    def proposals(*shape):
        token = torch.randint(-2, 40, shape, generator=generator)
        prob = torch.rand(shape, generator=generator, dtype=torch.float64)
        return token, prob, *(torch.rand(shape, generator=generator) for _ in range(2))

    at = torch.rand(3, 14, generator=generator).argsort(1)[:, :width].clone()
    at[:, -1] = at[:, -2]  # as short rows repeat their last position
    where = torch.rand(3, width, generator=generator) < 0.7
    where[:, -1] = False
    return proposals(3, 14), at, where, proposals(3 * width)


def selected(seed):
    tokens, _, confidence, lo, _ = canvases(seed)
    generator = torch.Generator().manual_seed(seed)
    where = (torch.rand(3, 14, generator=generator) < 0.3) & (lo > 3)[:, None]
    if seed % 3 == 0:
        confidence = torch.full_like(confidence, -torch.inf)
    return where, tokens == MASK, confidence


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_survey_says_what_stands_on_each_row(seed):
    tokens, _, held, numbers, _, _ = arguments = surveyed(seed)
    found = ops.survey(*arguments)
    for one, other in zip(found, reference(ops.survey, *arguments), strict=True):
        assert torch.equal(one, other)
    for i, row in enumerate(ops.Row(*row) for row in found.rows.tolist()):
        masks = [j for j in range(row.start, min(row.stop, 14)) if tokens[i, j] == MASK]
        assert row[:6] == tuple(int(number[i]) for number in numbers)
        assert found.masked[i].nonzero()[:, 0].tolist() == masks
        assert (row.masks, row.mask_at) == (len(masks), masks[0] if masks else 14)
        assert row.open == sum(row.lo <= j < row.hi for j in masks)
        assert row.done == (not masks and not held[i]) and row.held == held[i]


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_put_changes_what_is_wanted_and_nothing_else(seed):
    kept, at, where, new = arguments = placed(seed)
    found = ops.put(*arguments)
    for one, other in zip(found, reference(ops.put, *arguments), strict=True):
        assert torch.equal(one, other)
    for value, old, fresh in zip(found, kept, new, strict=True):
        expected = old.clone()
        for i, k in where.nonzero().tolist():
            expected[i, at[i, k]] = fresh.view(at.shape)[i, k]
        assert torch.equal(value, expected)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_choose_takes_something_in_every_row_that_is_open(seed):
    where, open, confidence = arguments = selected(seed)
    found = ops.choose(*arguments)
    assert torch.equal(found, reference(ops.choose, *arguments))
    assert torch.equal(found.any(1), open.any(1))
    for row, named in zip(found & open, where & open, strict=True):
        assert torch.equal(row, named) if named.any() else row.sum() <= 1
    assert torch.equal(ops.choose(where, open, confidence.float()).any(1), open.any(1))


@needs_extension
def test_opcheck_accepts_them():
    opcheck(torch.ops.dlmdecode.survey, surveyed(1))
    kept, at, where, new = placed(1)
    opcheck(torch.ops.dlmdecode.put, (*kept, at, where, *new))
    opcheck(torch.ops.dlmdecode.choose, selected(1))


def test_they_refuse_nonsense():
    where, open, confidence = selected(1)
    refuses_nonsense(ops.choose, where=where, open=open, confidence=confidence)


@pytest.mark.parametrize("name", ["proposed", "held", "numbers"])
def test_a_survey_refuses_what_does_not_fit(name):
    names = ("tokens", "proposed", "held", "numbers", "eos", "mask_id")
    arguments = dict(zip(names, surveyed(1), strict=True))
    wrong = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=name):
        ops.survey(**arguments | {name: [wrong] * 6 if name == "numbers" else wrong})


@pytest.mark.parametrize("which", range(4))
def test_put_refuses_what_does_not_fit(which):
    arguments = list(placed(1))
    wrong = torch.zeros(2, 2)
    arguments[which] = wrong if which in (1, 2) else (wrong,) * 4
    with pytest.raises(ValueError, match="kept|at|where|new"):
        ops.put(*arguments)
