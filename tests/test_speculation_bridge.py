"""Transformers' candidate generators as drafters, and the other way round."""

import torch
from speculation_toys import llama, micro
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from dlmdecode.speculation import Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.bridge import AsCandidates, FromCandidates


def test_transformers_prompt_lookup_drafts():
    model, prompt = llama(), torch.tensor([5, 6, 7, 8, 5, 6])
    lookup = PromptLookupCandidateGenerator(
        eos_token_id=torch.tensor([2]), max_matching_ngram_size=2, max_length=200
    )
    assert FromCandidates(lookup).draft(prompt.tolist(), 2) == [7, 8]
    out = decode(FromCandidates(lookup), model, prompt, max_new_tokens=20)
    wanted = Verifier(model).generate(prompt, max_new_tokens=20)
    assert torch.equal(out.sequences, wanted.sequences)
    assert out.stats["num_draft_tokens"] > 0


def test_diffusion_drafts_are_candidates_and_adapt_their_length():
    model, prompt = llama(), torch.tensor([[5, 6, 7]])
    generator = AsCandidates(micro("dream"), model, vocabulary="identity")
    candidates, logits = generator.get_candidates(prompt)
    direct = decode(micro("dream"), model, prompt, max_new_tokens=40, vocabulary="identity")
    assert logits is None
    assert candidates[0, 3:].tolist() == list(direct.trace[0].draft)
    generator.update_candidate_strategy(candidates, None, 0)
    again, _ = generator.get_candidates(prompt)
    assert 0 < again.shape[1] < candidates.shape[1] or candidates.shape[1] < 3 + 30
