"""Draft lengths that look at how sure the drafter is."""

from itertools import combinations
from math import log, sqrt

import pytest
import torch
from fuzz_speculate import verifier
from speculation_toys import micro
from test_speculation_trees import PROMPT, plain

from dlmdecode.speculation import (
    CausalDrafter,
    ConfidentLength,
    CostLength,
    DiffusionDrafter,
    Draft,
    EntropyLength,
    FailFast,
    PromptLookup,
    Recycling,
)
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.cut_length import TRIALS, path_probabilities
from dlmdecode.speculation.diffuspec.lattice import entropy

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
    for rule in ("confidence", "cost", ConfidentLength(8, 0.5, 1, True)):
        out = decode(DiffusionDrafter(micro("dream")), one, PROMPT, draft_length=rule, **how)
        assert out.sequences.tolist() == [text]
    lengths = [len(step.draft) for step in out.trace]
    assert search == "tree" or max(lengths) < 8
    for rule in ("confidence", "cost"):
        out = decode(Recycling(), one, PROMPT, max_new_tokens=20, draft_length=rule)
        assert torch.equal(out.sequences, torch.tensor([text]))


def measured(base, share, sizes=(0, 10, 20, 5, 15, 30)):
    rule = CostLength()
    for size in sizes:
        rule.measure(size, base + share * size)
    return rule


def test_the_seconds_of_a_step_and_of_a_node_are_found():
    assert measured(0.2, 0.01).fitted() == pytest.approx((0.2, 0.01))
    assert measured(0.2, -0.01).fitted()[1] == 0.0
    assert measured(0.2, 0.01, [7] * 6).fitted() == pytest.approx((0.27, 0.0))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15, 0.3, 0.6, 2.0])
def test_the_nodes_kept_have_the_most_expected_tokens_a_second(share):
    likely = path_probabilities(TREE)

    def speed(nodes):
        return (1 + sum(likely[node] for node in nodes)) / (1 + share * len(nodes))

    closed = [
        nodes
        for size in range(len(TREE) + 1)
        for nodes in combinations(range(len(TREE)), size)
        if all(TREE.parent[node] in (-1, *nodes) for node in nodes)
    ]
    best = max(closed, key=speed)
    kept = measured(1.0, share).cut(TREE)
    wanted = TREE.only(list(best))
    assert speed([TREE.token.index(one) for one in kept.token]) == pytest.approx(speed(best))
    assert share == 0.0 or len(kept) == len(wanted)


def test_sizes_are_tried_before_costs_are_known():
    rule, sizes = CostLength(), []
    for _ in range(TRIALS):
        sizes.append(len(rule.cut(TREE)))
        rule.measure(sizes[-1], 1.0)
    assert sizes == [5, 3, 2, 5, 3, 2]
    assert rule.start() is rule and len(rule.cut(Draft.chain([], []))) == 0


def test_a_drafter_without_probabilities_cannot_be_cut_by_them():
    with pytest.raises(ValueError, match="PromptLookup does not say how likely its tokens are"):
        decode(
            PromptLookup(), verifier("llama"), PROMPT, max_new_tokens=9, draft_length="confidence"
        )
    with pytest.raises(ValueError, match="least=30: give less than most=30"):
        ConfidentLength(least=30)
    with pytest.raises(ValueError, match="Recycling does not measure its entropy"):
        decode(Recycling(), verifier("llama"), PROMPT, max_new_tokens=9, draft_length="entropy")
    with pytest.raises(ValueError, match="gamma=0"):
        EntropyLength(gamma=0)


def test_the_bound_of_entropy_is_the_papers():
    rule = EntropyLength(bound=0.4, least=1, gamma=0.2)
    limit = (1 - 0.4) ** 2 / 0.2
    assert rule.worth(1, limit - 1e-9) and not rule.worth(1, limit + 1e-9)
    assert rule.worth(0, 99.0) and not rule.worth(1, 99.0)
    moving = EntropyLength(bound=0.4, moves=True)
    moving.update(10, 0)
    assert moving.bound == pytest.approx(0.401)
    assert moving.start().bound == pytest.approx(0.401) and moving.start().matched == 0


def flat_after(count, vocabulary=8):
    """Logits whose distributions are sure of a token `count` times, then know nothing."""
    sure = torch.zeros(count, vocabulary)
    sure[torch.arange(count), torch.arange(count)] = 20.0
    return torch.cat([sure, torch.zeros(vocabulary - count, vocabulary)])


def test_entropy_is_that_of_all_tokens():
    assert entropy(flat_after(2)).tolist() == pytest.approx([0, 0, *[log(8)] * 6], abs=1e-5)
    half = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert float(entropy(half)) == pytest.approx(log(2))
    assert 1 - sqrt(0.2 * log(8)) < 0.4


@pytest.mark.parametrize("kind", [DiffusionDrafter, FailFast])
def test_a_lattice_ends_before_the_first_flat_distribution(kind):
    model = micro("dream")
    drafter = kind(model)
    whole = drafter.draft([5, 9, 7], 12)
    seen = []
    drafter.end_by(lambda before, own: seen.append(own) or before < 3)
    cut = drafter.draft([5, 9, 7], 12)
    assert cut.ids.tolist() == whole.ids[:3].tolist() and len(seen) == 4
    drafter.end_by(None)
    assert len(drafter.draft([5, 9, 7], 12).ids) == len(whole.ids)
    committed = DiffusionDrafter(model, steps=3)
    committed.end_by(lambda before, own: own >= 0)
    assert len(committed.draft([5, 9, 7], 12).ids) == 12


def test_a_causal_drafter_saves_the_forwards_behind_a_flat_distribution():
    one = verifier("llama")
    drafter, prefix = CausalDrafter(one.model), PROMPT.tolist()
    whole = drafter.draft(prefix, 6)
    with torch.inference_mode():
        logits = one.model(torch.tensor([prefix + whole])).logits[0, len(prefix) - 1 :]
    wanted = entropy(logits).tolist()
    found = []
    drafter.end_by(lambda before, own: found.append((before, own)) or before < 4)
    before = drafter.forwards
    assert drafter.draft(prefix, 6) == whole[:4] and drafter.forwards - before == 5
    assert [at for at, _ in found] == [0, 1, 2, 3, 4]
    assert [own for _, own in found] == pytest.approx(wanted[:5], abs=1e-4)
    drafter.end_by(None)
    assert drafter.draft(prefix, 6) == whole  # the cache holds what it computed


@pytest.mark.parametrize("kind", [CausalDrafter, DiffusionDrafter, FailFast])
def test_the_text_of_drafts_that_end_by_entropy_is_the_verifiers_own(kind):
    one = verifier("llama")
    text = plain(one.model, 20)
    model = verifier("llama", 1).model if kind is CausalDrafter else micro("dream")
    lengths = []
    for bound in (0.0, 0.9):
        rule = EntropyLength(8, bound, gamma=0.1, moves=True)
        how = dict(max_new_tokens=20, vocabulary="identity", draft_length=rule)
        out = decode(kind(model), one, PROMPT, **how)
        assert out.sequences.tolist() == [text]
        lengths.append(sum(len(step.draft) for step in out.trace))
    assert lengths[1] < lengths[0]
