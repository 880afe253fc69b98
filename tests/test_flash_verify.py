"""Flash-Verify against its rule, written down plainly: a forward for each draft, nothing packed."""

from __future__ import annotations

import copy

import pytest
import torch
from toy import EOS, MASK, micro, prompts

import dlmdecode
from dlmdecode.samplers.flash_verify_pack import who_sees_whom

LENGTH, WINDOW, DRAFTS, THRESHOLD = 24, 8, 5, 0.5


class OneLayer(type(micro("llada"))):
    """What a position sees are tokens alone, so that its view when packed is that of a forward."""

    @property
    def blocks(self):
        return self.parts["blocks"][:1]


def shallow():
    model = copy.copy(micro("llada"))
    model.__class__ = OneLayer
    return model


def probabilities(model, tokens):
    """(L, V) float64."""
    return model(tokens[None])[0].double().softmax(-1)


def kept_drafts(model, tokens, drafts, gamma, rule):
    """How many of the drafts [(position, token)] hold, by a forward before each of them."""
    view, product = tokens.clone(), 1.0
    for number, (position, token) in enumerate(drafts):
        prob = probabilities(model, view)[position]
        product *= float(prob[token])
        holds = product >= gamma
        if rule == "each":
            holds = float(prob[token]) >= gamma and int(prob.argmax()) == token
        if not holds:
            return number
        view[position] = token
    return len(drafts)


def plainly(model, prompt, gamma, rule):
    """The text, how many forwards it took, and how many drafts were kept and left."""
    tokens = torch.cat([prompt, torch.full((LENGTH,), MASK)])
    forwards = kept = left = 0
    while len(window := (tokens == MASK).nonzero()[:WINDOW, 0].tolist()):
        prob = probabilities(model, tokens)
        sure, best = (prob[:, :MASK] / prob[:, :MASK].sum(-1, keepdim=True)).max(-1)
        forwards += 1
        ranked = sorted(window, key=lambda i: -sure[i])
        now = [i for i in ranked if sure[i] >= THRESHOLD] or ranked[:1]
        tokens[now] = best[now]
        drafts = [(i, int(best[i])) for i in ranked if i not in now][:DRAFTS]
        if drafts:
            number = kept_drafts(model, tokens, drafts, gamma, rule)
            forwards, kept, left = forwards + 1, kept + number, left + len(drafts) - number
            for position, token in drafts[:number]:
                tokens[position] = token
    return tokens, forwards, kept, left


def run(model, rows, gamma, rule, **more):
    how = {"drafts": DRAFTS, "threshold": THRESHOLD, "block_length": WINDOW, "eos": "ignore"}
    options = {"max_new_tokens": LENGTH, "gamma": gamma, "rule": rule} | how | more
    return dlmdecode.generate(model, rows, "flash_verify", **options)


@pytest.mark.parametrize("gamma, rule", [(0.1, "product"), (0.01, "product"), (0.3, "each")])
def test_text_and_forwards_are_those_of_the_rule_written_plainly(gamma, rule):
    rows, counts = prompts(6, 3, 11), [0, 0]
    out = run(shallow(), rows, gamma, rule)
    for i, prompt in enumerate(rows):
        tokens, forwards, *count = plainly(shallow(), prompt, gamma, rule)
        assert torch.equal(out.sequences[i, : len(tokens)], tokens)
        assert out.nfe[i] == forwards
        counts = [a + b for a, b in zip(counts, count, strict=True)]
    assert min(counts) > 0  # drafts were kept, and others were not


def test_a_step_that_verifies_costs_the_canvas_and_its_drafts():
    (prompt,), four = prompts(6), {"max_new_tokens": 4, "block_length": 4}
    out = run(micro("llada"), prompt, 1.0, "product", threshold=1.0, drafts=3, **four)
    # of 4 masks one is written a step: 3, 2 and 1 drafts beside the canvas, none of them kept
    assert out.nfe == [7]
    assert out.stats["forward_positions"] == 7 * (6 + 4) + 3 + 2 + 1


def test_every_query_sees_each_position_once_as_a_mask_or_as_a_draft():
    masks, drafts = torch.tensor([[0, 2, 0, 1, 3]]), torch.tensor([[1, 2, 3, 0]])
    seen = who_sees_whom(masks, drafts, None)[0, 0].int()
    assert (seen[:, [3, 1, 4]] + seen[:, 5:8] == 1).all()  # of drafts 1, 2 and 3
    assert (seen[:, [0, 2]] == 1).all() and (seen[:, 8] == 0).all()
    as_drafts = seen[:, 5:8].tolist()
    assert as_drafts[:5] == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert as_drafts[5:8] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_drafts_behind_a_text_that_has_ended_are_dropped():
    model = micro("llada")
    rows = prompts(6, 3, 11)
    whole, cut = (run(model, rows, 0.01, "product", eos=eos) for eos in ("ignore", "stop"))
    for i, prompt in enumerate(rows):
        alone = run(model, prompt, 0.01, "product", eos="stop")
        assert torch.equal(cut.sequences[i, : len(prompt) + LENGTH], alone.sequences[0])
        text = whole.sequences[i, len(prompt) : len(prompt) + LENGTH].tolist()
        end = text.index(EOS) + 1 if EOS in text else LENGTH
        assert cut.sequences[i, len(prompt) : len(prompt) + end].tolist() == text[:end]
        assert cut.nfe[i] <= whole.nfe[i]


def test_a_model_of_shifted_logits_is_refused():
    with pytest.raises(ValueError, match="flash_verify.*not shifted"):
        run(micro("dream"), prompts(3), 0.8, "product")
