"""Lossy verification: asked for by name, told of in the statistics, and what it accepts."""

from math import exp, log

import pytest
import torch
from speculation_toys import llama

from dlmdecode.speculation import CausalDrafter, Draft, Drafter, TypicalAcceptance, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.acceptance import TypicalChoices
from dlmdecode.speculation.verifier.verification import Choices, walk

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12])
RULES = [{}, {"repetition_penalty": 1.2}, {"temperature": 0.9, "seed": 4}]


class Second(Drafter):
    """What comes second to a causal model, or third and so on, each with two tokens more that come
    second; greedily it accepts none of them."""

    def __init__(self, model, branches=1):
        self.model, self.branches = model, branches

    def best(self, text):
        return self.model(torch.tensor([text])).logits[0, -1].topk(5).indices.tolist()

    @torch.inference_mode()
    def draft(self, prefix, length):
        paths = [[one] for one in self.best(prefix)[1 : 1 + self.branches]]
        for path in paths:
            while len(path) < min(length, 3):
                path.append(self.best(prefix + path)[1])
        return Draft.joined(paths)


def scores_of(*probabilities):
    return torch.tensor(probabilities).log()


def test_a_token_stands_above_the_bound_of_its_distribution():
    rule, p = TypicalAcceptance(epsilon=0.09, alpha=0.3), (0.6, 0.25, 0.1, 0.05)
    entropy = -sum(one * log(one) for one in p)
    assert rule.likeliest(scores_of(*p), [3, 2]) == 2
    assert rule.likeliest(scores_of(*p), [2, 1]) == 1
    assert rule.likeliest(scores_of(*p), [3]) is None
    close = 0.05 / exp(-entropy)
    assert TypicalAcceptance(0.9, close * 0.99).likeliest(scores_of(*p), [3]) == 3
    assert TypicalAcceptance(0.9, close * 1.01).likeliest(scores_of(*p), [3]) is None
    assert rule.likeliest(torch.tensor([0.0, -torch.inf]), [1]) is None


def test_the_verifiers_own_choice_goes_before_a_likely_one():
    scores = scores_of((0.5, 0.4, 0.1), (0.1, 0.6, 0.3), (0.3, 0.3, 0.4), (0.2, 0.2, 0.6))
    draft = Draft([1, 0, 2], [-1, -1, 1])
    chosen = TypicalChoices(Choices(scores, [9], [], None), draft, TypicalAcceptance(0.2))
    verdict = walk(draft, chosen, lambda written: False)
    assert verdict.path == [1, 2] and verdict.written == [0, 2, 2]
    draft = Draft([1, 2], [-1, 0])
    chosen = TypicalChoices(Choices(scores, [9], [], None), draft, TypicalAcceptance(0.2))
    assert walk(draft, chosen, lambda written: written[-1] == 2).written == [1, 2]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_more_is_accepted_and_the_text_is_another_one(rule):
    model = llama(spread=0.2)
    how = dict(max_new_tokens=20, draft_length=4) | rule
    exact = decode(Second(model), model, PROMPT, **how)
    typical = decode(Second(model), model, PROMPT, acceptance="typical", **how)
    assert exact.stats["lossless"] is True and typical.stats["lossless"] is False
    assert typical.stats["mean_accepted_tokens"] > exact.stats["mean_accepted_tokens"]
    assert typical.stats["verifier_forwards"] < exact.stats["verifier_forwards"]
    assert not torch.equal(typical.sequences, exact.sequences)
    again = decode(Second(model), model, PROMPT, acceptance="exact", **how)
    assert torch.equal(again.sequences, exact.sequences)
    if "temperature" not in rule:
        plain = Verifier(model).generate(PROMPT, **{"max_new_tokens": 20} | rule)
        assert torch.equal(exact.sequences, plain.sequences)


@pytest.mark.parametrize("branches", [1, 3])
def test_what_stands_is_the_best_token_or_a_typical_one(branches):
    model, rule = llama(spread=0.2), TypicalAcceptance(0.02, 0.5)
    how = dict(max_new_tokens=20, draft_length=6, acceptance=rule)
    out = decode(Second(model, branches), model, PROMPT, **how)
    text = out.sequences[0].tolist()
    with torch.inference_mode():
        p = model(torch.tensor([text])).logits[0].softmax(-1)
    at, other = len(PROMPT), 0
    for step in out.trace:
        for i, token in enumerate(step.written):
            own = p[at - 1]
            if token != int(own.argmax()):
                bound = min(0.02, 0.5 * exp(-float(torch.special.entr(own).sum())))
                assert i < step.accepted and float(own[token]) > bound - 1e-6
                other += 1
            at += 1
    assert at == len(text) and other > 0
    again = decode(Second(model, branches), model, PROMPT, **how)
    assert torch.equal(out.sequences, again.sequences)


def test_a_lossy_rule_without_drafts_or_with_wrong_numbers_is_refused():
    model = llama()
    for acceptance in ("lossy", 0.3, TypicalAcceptance):
        with pytest.raises(ValueError, match="^acceptance=.*'exact', 'typical'"):
            decode(CausalDrafter(model), model, PROMPT, max_new_tokens=4, acceptance=acceptance)
    with pytest.raises(ValueError, match="^acceptance='typical': draft_length=0 drafts nothing"):
        how = dict(max_new_tokens=4, draft_length=0, acceptance="typical")
        decode(CausalDrafter(model), model, PROMPT, **how)
    for wrong in ({"epsilon": 0}, {"epsilon": 1.5}, {"alpha": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}="):
            TypicalAcceptance(**wrong)
