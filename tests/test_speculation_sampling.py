"""Sampled text has the verifier's distribution, and the published rule for q does not."""

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from speculation_toys import llama

from dlmdecode.decoding.noise import uniform
from dlmdecode.speculation import Draft, Drafter, TopM, row
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.verification import Choices, Verdict, choose, walk

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
LIMIT = 1e-4


def noise(count, width, seed=0):
    return uniform(torch.tensor(seed), torch.arange(count)[:, None], torch.arange(width))


def ours(scores, draft, rows):
    """How many draft tokens stand, and the token after them."""
    verdict = walk(Draft.chain(draft), Choices(scores, [], None, rows), lambda new: False)
    return len(verdict.path), verdict.written[-1]


def published(q):
    """Accept with min(1, p/q) a token that was not drawn from q: DiffuSpec's Eq. 6 on a path."""

    def rule(scores, draft, rows):
        p = scores.double().softmax(-1)
        for i, token in enumerate(draft):
            size = p.shape[-1]
            if float(rows[i]) >= min(1.0, float(p[i, token] / q[token])):
                rest = (p[i] - q[:size]).clamp(min=0)
                again = uniform((rows[i] * 2**52).long(), torch.tensor(1))
                return i, int(choose(rest.log()[None], again[None])[0])
        return len(draft), int(choose(scores[-1:], rows[-1:])[0])

    return rule


def first_tokens(rule, count=4000):
    """How often each token comes first when token 0 is drafted."""
    scores, found = P.log().expand(2, -1), torch.zeros(3)
    for rows in noise(count, 2):
        accepted, token = rule(scores, [0], rows)
        found[0 if accepted else token] += 1
    return found.numpy()


def test_the_rule_gives_the_verifiers_distribution_for_a_fixed_draft():
    assert chisquare(first_tokens(ours), 4000 * P.numpy()).pvalue > LIMIT


def test_the_published_rule_does_not():
    found = first_tokens(published(Q))
    assert chisquare(found, 4000 * P.numpy()).pvalue < LIMIT
    assert found / 4000 == pytest.approx([0.714, 0.143, 0.143], abs=0.03)


def test_choices_follow_their_probabilities_at_every_position():
    scores = torch.tensor([[0.0, 1.0, 2.0], [3.0, -torch.inf, 0.0]])
    drawn = torch.stack([choose(scores, rows) for rows in noise(4000, 2)])
    for position in (0, 1):
        p = scores[position].double().softmax(-1)
        counts = torch.bincount(drawn[:, position], minlength=3)
        assert counts[p == 0].sum() == 0
        assert chisquare(counts[p > 0].numpy(), 4000 * p[p > 0].numpy()).pvalue > LIMIT


class Insisting(Drafter):
    """Always proposes the same tokens with the same confidence."""

    vocab_size = 4
    searched = True

    def draft(self, prefix, length):
        ids = torch.tensor([[0, 1]] * length)
        return TopM(ids, torch.tensor([[0.7, 0.2]] * length).log())


def outcomes(model, prompt, length):
    """The probability of every text of `length` tokens."""
    texts = list(product(range(4), repeat=length))
    rows = torch.tensor([prompt.tolist() + list(text) for text in texts])
    with torch.inference_mode():
        log_prob = model(rows).logits.double().log_softmax(-1)[:, len(prompt) - 1 : -1]
    p = log_prob.gather(2, rows[:, len(prompt) :, None])[..., 0].sum(1).exp()
    return texts, p.numpy()


def sampled(model, prompt, length, count, **options):
    out = decode(
        Insisting(), model, [prompt] * count, max_new_tokens=length, temperature=1.0, **options
    )
    return [tuple(row) for row in out.sequences[:, len(prompt) :].tolist()]


def histogram(model, prompt, count=300):
    texts, p = outcomes(model, prompt, 2)
    drawn = sampled(model, prompt, 2, count)
    return chisquare([drawn.count(text) for text in texts], count * p).pvalue


@pytest.fixture
def toy():
    return llama(4, eos=(), spread=0.15), torch.tensor([1, 2, 3])


def test_texts_of_a_toy_verifier_come_with_their_probabilities(toy):
    assert histogram(*toy) > LIMIT


def test_the_same_check_fails_when_the_published_rule_is_swapped_in(toy, monkeypatch):
    rule = published(torch.tensor([0.7, 0.2, 0.05, 0.05]))

    def swapped(draft, chosen, ends):
        accepted, token = rule(chosen[0], draft.token, chosen[1])
        written = [*draft.token[:accepted], token]
        whole = next((i for i in range(1, len(written)) if ends(written[:i])), len(written))
        return Verdict(list(range(accepted)), written[:whole], ends(written[:whole]))

    monkeypatch.setattr(row, "Choices", lambda scores, _, __, rows: (scores, rows))
    monkeypatch.setattr(row, "walk", swapped)
    assert histogram(*toy) < LIMIT


def test_a_sampled_text_depends_on_the_seed_and_not_on_the_draft(toy):
    model, prompt = toy

    class Other(Insisting):
        def draft(self, prefix, length):
            return [(prefix[-1] + 1) % 4] * length

    texts = {}
    for seed in (0, 1):
        for drafter in (Insisting(), Other()):
            out = decode(drafter, model, prompt, max_new_tokens=40, temperature=1.0, seed=seed)
            texts.setdefault(seed, []).append(out.sequences.tolist())
    assert texts[0][0] == texts[0][1] != texts[1][0] == texts[1][1]


def test_top_k_and_temperature_are_the_verifiers_own(toy):
    model, prompt = toy
    greedy = decode(Insisting(), model, prompt, max_new_tokens=20).sequences
    narrow = decode(Insisting(), model, prompt, max_new_tokens=20, temperature=2.0, top_k=1)
    assert torch.equal(narrow.sequences, greedy)
    cold = decode(Insisting(), model, prompt, max_new_tokens=20, temperature=1e-4)
    assert torch.equal(cold.sequences, greedy)
