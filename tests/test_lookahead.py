"""Look-ahead decoding against the same rule by hand: one row and one forward a draft."""

from __future__ import annotations

import pytest
import torch
from test_samplers import run
from toy import MASK, micro, prompts


def proposed(family: str, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best tokens and their probabilities at each position of one text (L,)."""
    logits = micro(family)(tokens[None])[0]
    if family == "dream":
        logits = torch.cat([logits[:1], logits[:-1]])
    logits[:, MASK] = -torch.inf
    prob, token = logits.double().softmax(-1).max(-1)
    return token, prob


def lopa_by_hand(family, prompt, length, block, branches, weight, worst, threshold):
    """The text, and how many forwards it took, all drafts of a step counting once."""
    text, calls = torch.cat([prompt, torch.full((length,), MASK)]), 0
    for lo in range(len(prompt), len(text), block):
        token = prob = None
        while (open := (text[lo : lo + block] == MASK).nonzero()[:, 0] + lo).numel():
            drafts = []
            if token is not None:
                best = sorted(open.tolist(), key=lambda i: -prob[i])
                for i in best[: min(branches, len(open) - 1)]:
                    draft = text.clone()
                    draft[i] = token[i]
                    drafts.append((draft, float(prob[i])))
            seen = []
            for tokens, sure in [*drafts, (text, 1.0)]:
                token, prob = proposed(family, tokens)
                left = prob[lo : lo + block][tokens[lo : lo + block] == MASK].sort().values
                mean = float(left[: max(1, int(len(left) * worst))].mean())
                seen.append((weight * sure + (1 - weight) * mean, tokens, token, prob))
            _, text, token, prob = max(seen, key=lambda one: one[0])
            calls += 1
            open = (text[lo : lo + block] == MASK).nonzero()[:, 0] + lo
            written = open[prob[open] >= threshold]
            written = written if len(written) else open[prob[open].argmax()][None]
            text = text.clone()
            text[written] = token[written]
    return text, calls


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("branches, weight, worst", [(1, 0.0, 1.0), (3, 0.5, 1.0), (5, 0.2, 0.4)])
def test_lopa_writes_the_text_of_its_rule_by_hand(family, branches, weight, worst):
    options = {"branches": branches, "weight": weight, "worst": worst, "threshold": 0.7}
    prompt = prompts(6)[0]
    out = run("lopa", prompt, family, **options)
    text, calls = lopa_by_hand(family, prompt, 16, 8, **options)
    assert torch.equal(out.sequences[0], text)
    assert out.nfe == [calls]
