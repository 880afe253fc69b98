"""Diffusion drafts of several forwards: threshold drafting and FailFast."""

import pytest
import torch
from speculation_toys import llama, micro

from dlmdecode.speculation import (
    DiffusionDrafter,
    Draft,
    FailFast,
    LatticeTree,
    Observation,
    ThresholdDrafter,
    TopM,
    Verifier,
)
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.drafters import resolve_drafter
from dlmdecode.speculation.drafters.plan import Ask, together

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_with_one_forward_both_are_the_plain_draft():
    prefix, plain = PROMPT.tolist(), DiffusionDrafter(micro("dream"))
    top = plain.draft(prefix, 12)
    assert same(ThresholdDrafter(micro("dream"), steps=1).draft(prefix, 12), top)
    assert same(FailFast(micro("dream"), block=12, low=0).draft(prefix, 12), top)


@pytest.mark.parametrize("spec", ["threshold", "threshold,threshold=0.01", "failfast,block=4"])
def test_the_text_is_the_verifiers(spec, monkeypatch):
    model, name = llama(), spec.partition(",")[0]
    monkeypatch.setattr("dlmdecode.speculation.drafters.forwards.load", lambda _: micro("dream"))
    drafter = resolve_drafter(spec.replace(name, f"{name},model=micro", 1), 1, 15)
    out = decode(drafter, model, PROMPT, max_new_tokens=20, vocabulary="identity")
    assert torch.equal(out.sequences, Verifier(model).generate(PROMPT, 20).sequences)
    assert out.stats["drafter_forwards"] > 0
    assert out.trace[0].length == 19  # theirs is the length, up to the end of the text


def test_plans_that_ask_the_same_are_answered_in_one_call():
    calls = []

    def double(numbers):
        calls.append(list(numbers))
        return [2 * number for number in numbers]

    def negate(numbers):
        return [-number for number in numbers]

    def plan(start, times, of=double):
        for _ in range(times):
            start = yield Ask(of, start)
        return [start]

    plans = [plan(1, 3), plan(5, 0), plan(2, 1), plan(3, 2, negate), plan(4, 2)]
    assert together(plans) == [[8], [5], [4], [3], [16]]
    assert calls == [[1, 2, 4], [2, 8], [4]]
    assert together([]) == []


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
@pytest.mark.parametrize("cached", [True, False])
def test_texts_drafted_together_have_the_drafts_of_each_alone(family, cached, monkeypatch):
    monkeypatch.setattr("dlmdecode.speculation.drafters.look.LOGITS", 2000)  # in slices
    first, ids = DiffusionDrafter(micro(family), 2, prefix_cache=cached), PROMPT.tolist() * 5
    drafters = [first.copied() for _ in range(3)]
    alone = [DiffusionDrafter(micro(family), 2, prefix_cache=cached) for _ in range(3)]
    for drafter in drafters:
        drafter.reset()
    for ends in ((3, 20, 9), (6, 22, 9), (4, 30, 35)):  # they grow, and are cut back
        plans = [d.plan(ids[:end], 6 + end % 3) for d, end in zip(drafters, ends, strict=True)]
        for own, end, top in zip(alone, ends, together(plans), strict=True):
            wanted = own.draft(ids[:end], 6 + end % 3)
            assert torch.equal(top.ids[:, 0], wanted.ids[:, 0])
            torch.testing.assert_close(top.log_prob, wanted.log_prob, atol=1e-4, rtol=0)
    assert [drafter.forwards for drafter in drafters] == [6, 0, 0]


class Told:
    """Instead of the model's forward: the confidence of each position, given what it sees."""

    def __init__(self, drafter, confidence, eos=()):
        self.drafter, drafter.look, drafter.eos_ids = drafter, self, tuple(eos)
        drafter.model = micro("dream")
        self.confidence, self.calls = confidence, []

    def __call__(self, prefix, canvas):
        self.drafter.forwards += 1
        self.calls.append((list(prefix), canvas.tolist()))
        own, mask = self.confidence(len(prefix), canvas), micro("dream").mask_id
        ids = torch.arange(len(canvas)) + len(prefix)
        own = torch.where(canvas == mask, own, torch.ones(()))
        yield from ()
        return TopM(ids[:, None], own.log()[:, None])


def test_a_threshold_commits_the_sure_and_the_surest():
    drafter = ThresholdDrafter(micro("dream"), steps=9, threshold=0.8)
    told = Told(drafter, lambda _, canvas: torch.tensor([0.9, 0.3, 0.5, 0.95]))
    mask = micro("dream").mask_id
    top = drafter.draft([1, 2], 4)
    assert [canvas for _, canvas in told.calls] == [
        [mask] * 4, [2, mask, mask, 5], [2, mask, 4, 5],
    ]  # fmt: skip
    assert top.ids[:, 0].tolist() == [2, 3, 4, 5]
    assert top.log_prob[:, 0].exp().tolist() == pytest.approx([0.9, 0.3, 0.5, 0.95])
    drafter.steps = 2
    told.calls.clear()
    drafter.draft([1, 2], 4)
    assert len(told.calls) == 2


def test_a_threshold_stops_where_nothing_is_open_before_the_end():
    drafter = ThresholdDrafter(micro("dream"), steps=9, threshold=0.8)
    told = Told(drafter, lambda _, canvas: torch.tensor([0.9, 0.95, 0.1, 0.1]), eos=[4])
    drafter.draft([1, 2], 4)
    assert len(told.calls) == 1


def test_further_forwards_look_no_further_than_the_end_of_the_text():
    drafter = ThresholdDrafter(micro("dream"), steps=9, threshold=0.8)
    told = Told(
        drafter, lambda _, canvas: torch.tensor([0.9, 0.5, 0.9, 0.9, 0.1])[: len(canvas)], [4]
    )
    top = drafter.draft([1, 2], 5)  # token 4, the end, is at position 2
    mask = micro("dream").mask_id
    assert [canvas for _, canvas in told.calls] == [[mask] * 5, [2, mask, 4, 5]]
    assert top.ids[:, 0].tolist() == [2, 3, 4, 5]


def test_a_draft_is_one_forward_where_forwards_are_dear():
    drafter = ThresholdDrafter(micro("dream"), steps=4, dear=0.5)
    drafter.cost = 1.0
    for seconds, steps in ((1.9, 1), (2.0, 4)):
        drafter.observe(Observation([1], Draft.chain([]), torch.zeros(1, 4), [], [2], seconds))
        assert drafter.steps == steps


def test_failfast_goes_on_while_it_is_sure_and_sends_the_block_where_it_is_not():
    drafter = FailFast(micro("dream"), block=3, low=0.45)
    told = Told(drafter, lambda length, canvas: torch.full((len(canvas),), 1 - 0.1 * length))
    top = drafter.draft([7, 7], 20)  # 0.8, 0.5, then 0.2
    assert [len(prefix) for prefix, _ in told.calls] == [2, 5, 8]
    assert told.calls[1][0] == [7, 7, 2, 3, 4]
    assert top.ids[:, 0].tolist() == list(range(2, 11))
    told.calls.clear()
    assert len(drafter.draft([7, 7], 5).ids) == 5
    assert [len(canvas) for _, canvas in told.calls] == [3, 2]


def test_failfast_ends_with_the_block_that_has_an_end():
    drafter = FailFast(micro("dream"), block=3)
    told = Told(drafter, lambda length, canvas: torch.full((len(canvas),), 0.9), eos=[6])
    assert len(drafter.draft([7, 7], 20).ids) == 6
    assert len(told.calls) == 2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ThresholdDrafter(micro("dream"), threshold=0), "^threshold=0"),
        (lambda: ThresholdDrafter(micro("dream"), dear=-1), "^dear=-1"),
        (lambda: FailFast(micro("dream"), block=0), "^block=0"),
        (lambda: FailFast(micro("dream"), low=2), "^low=2"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [{}, {"lam": 1.0}, {"nodes": 5, "num_candidates": 2}], ids=str)
def test_a_tree_of_the_lattice_is_verified(kind):
    model, tree = llama(), LatticeTree(**kind)
    how = dict(max_new_tokens=20, vocabulary="identity", draft_length=6, path_search=tree)
    out = decode(micro("dream"), model, PROMPT, **how)
    assert torch.equal(out.sequences, Verifier(model).generate(PROMPT, 20).sequences)
    assert max(len(step.draft) for step in out.trace) <= tree.nodes
    assert any(step.parent.count(-1) > 1 for step in out.trace)
