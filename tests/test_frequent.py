"""A drafter's head for frequent ids: other drafts, the same text."""

import pytest
import torch
from fuzz_speculate import verifier
from speculation_toys import llama

from dlmdecode.speculation import CausalDrafter, Verifier, load_verifier, speculate
from dlmdecode.speculation.diffuspec.counting import build
from dlmdecode.speculation.drafters.frequent import frequent_ids, with_rows

PROMPT = torch.tensor([5, 90, 33, 7])


def test_the_most_frequent_ids_are_those_counted_most_often():
    ngram = build([[3, 3, 3, 1], [1, 3, 7]], 10, order=1)
    assert frequent_ids(ngram, 10, 2) == [1, 3]
    assert frequent_ids(build([[3, 1, 3, 7]], 10, order=3), 10, 3) == [1, 3, 7]
    with pytest.raises(ValueError, match="frequent=10"):
        frequent_ids(ngram, 10, 10)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
@torch.inference_mode()
def test_the_rows_of_a_head_give_the_logits_of_their_ids(family):
    model, ids = verifier(family).model, torch.tensor([7, 2, 250])
    cut = with_rows(model, ids)
    assert torch.allclose(cut(PROMPT[None]).logits, model(PROMPT[None]).logits[..., ids], atol=1e-5)
    assert cut.get_output_embeddings().weight.shape[0] == 3
    assert cut.get_input_embeddings() is model.get_input_embeddings()
    assert model(PROMPT[None]).logits.shape[-1] == model.config.vocab_size


def test_drafts_hold_these_ids_and_the_text_stays():
    model = llama(eos=(318,))
    text = Verifier(model).generate(PROMPT, max_new_tokens=30).sequences
    new = text[0, 4:].tolist()
    kept = set(new[::2])
    out = speculate(CausalDrafter(model, ids=kept), model, PROMPT, max_new_tokens=30)
    assert torch.equal(out.sequences, text)
    drafted = {token for step in out.trace for token in step.draft}
    assert drafted and drafted <= kept | {318}
    assert out.stats["num_accepted_draft_tokens"] > 0
    every = speculate(CausalDrafter(model, ids=new), model, PROMPT, max_new_tokens=30)
    assert torch.equal(every.sequences, text)
    assert every.stats["draft_acceptance_rate"] == 1.0


def test_ids_without_effect_or_meaning_are_refused():
    model = llama(eos=(318,))
    for ids, message in ((range(320), "leave it out"), ([320], "0..319"), ([-1], "0..319")):
        with pytest.raises(ValueError, match=message):
            CausalDrafter(model, ids=ids)
    with pytest.raises(ValueError, match="ids="):
        CausalDrafter(model, ids=["a"])
    for spec in ("causal,model=tiny-ar,frequent=9", "causal,model=tiny-ar,ngram=x.safetensors"):
        with pytest.raises(ValueError, match="frequent"):
            speculate(spec, model, PROMPT, max_new_tokens=4)


def test_by_name_the_ids_come_from_an_ngram_file(tmp_path):
    file = tmp_path / "ngram.safetensors"
    build([[5, 5, 9, 9, 9, 30]], 1024, order=2).save(file)
    spec, one = f"causal,model=tiny-ar,frequent=2,ngram={file}", load_verifier("tiny-ar")
    out = speculate(spec, one, "Tom has 3 apples.", max_new_tokens=4, draft_length=3)
    assert {token for step in out.trace for token in step.draft} <= {5, 9, *one.eos_ids}
    plain = one.generate("Tom has 3 apples.", max_new_tokens=4)
    assert torch.equal(out.sequences, plain.sequences)
