"""Draft lengths that look at how sure the drafter is."""

from math import log

import pytest
import torch
from fuzz_speculate import verifier
from speculation_toys import micro
from test_speculation_trees import PROMPT, plain

from dlmdecode.speculation import ConfidentLength, DiffusionDrafter, Draft, PromptLookup, Recycling
from dlmdecode.speculation import speculate as decode

TREE = Draft([5, 6, 7, 8, 9], [-1, 0, 1, -1, 3], [log(p) for p in (0.8, 0.5, 0.1, 0.1, 0.9)])


def test_a_path_ends_before_it_is_unlikely():
    assert ConfidentLength(bound=0.09, least=1).cut(TREE) == TREE.only([0, 1, 3, 4])
    assert ConfidentLength(bound=0.3, least=1).cut(TREE) == TREE.only([0, 1, 3])
    assert ConfidentLength(bound=0.3, least=2).cut(TREE) == TREE.only([0, 1, 3, 4])
    assert ConfidentLength(bound=0.0).cut(TREE) == TREE
    assert len(ConfidentLength().cut(Draft.chain([], []))) == 0


def test_a_moving_bound_rises_where_drafts_are_rejected():
    rule = ConfidentLength(bound=0.5, least=1, moves=True)
    for accepted, wanted in ((0, 0.501), (2, 0.502), (2, 0.503), (2, 0.504), (2, 0.503)):
        assert max(rule.cut(Draft.chain([1, 2], [-0.1, -0.1])).depth) == 1
        rule.update(2, accepted)
        assert rule.bound == pytest.approx(wanted)


@pytest.mark.parametrize("search", ["cps", "argmax", "tree"])
def test_the_text_is_the_verifiers_own(search):
    one = verifier("llama")
    text = plain(one.model, 20)
    how = dict(max_new_tokens=20, path_search=search, vocabulary="identity")
    for rule in ("confidence", ConfidentLength(8, 0.5, 1, True)):
        out = decode(DiffusionDrafter(micro("dream")), one, PROMPT, draft_length=rule, **how)
        assert out.sequences.tolist() == [text]
    lengths = [len(step.draft) for step in out.trace]
    assert search == "tree" or max(lengths) < 8
    out = decode(Recycling(), one, PROMPT, max_new_tokens=20, draft_length="confidence")
    assert torch.equal(out.sequences, torch.tensor([text]))


def test_a_drafter_without_probabilities_cannot_be_cut_by_them():
    with pytest.raises(ValueError, match="PromptLookup does not say how likely its tokens are"):
        decode(
            PromptLookup(), verifier("llama"), PROMPT, max_new_tokens=9, draft_length="confidence"
        )
    with pytest.raises(ValueError, match="least=30: give less than most=30"):
        ConfidentLength(least=30)
