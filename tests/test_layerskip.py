"""Drafts of the verifier without some of its layers."""

import pytest
import torch
from fuzz_speculate import verifier
from speculation_toys import llama

from dlmdecode.speculation import Draft, LayerSkip, Observation, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.drafters import resolve_drafter
from dlmdecode.speculation.drafters.layerskip import with_layers

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma", "gemma2"])
@pytest.mark.parametrize("bound", [0.0, 0.8])
def test_the_text_is_the_verifiers(family, bound):
    model = verifier(family).model
    wanted = Verifier(model).generate(PROMPT, 24).sequences
    drafter = LayerSkip(model, layers=1, bound=bound)
    out = decode(drafter, model, PROMPT, max_new_tokens=24)
    assert torch.equal(out.sequences, wanted)
    assert drafter.kept == [0] and out.stats["num_draft_tokens"] > 0


def test_the_layer_that_changes_nothing_is_left_out():
    model = llama(num_hidden_layers=4)
    silent = model.model.layers[2]
    with torch.no_grad():
        silent.self_attn.o_proj.weight.zero_()
        silent.mlp.down_proj.weight.zero_()
    drafter = LayerSkip(model, layers=3, bound=0.0)
    out = decode(drafter, model, PROMPT, max_new_tokens=24)
    assert drafter.kept == [0, 1, 3]
    assert out.stats["draft_acceptance_rate"] == 1.0


def test_the_model_is_left_as_it_was_and_its_weights_are_shared():
    model = llama(num_hidden_layers=3)
    some = with_layers(model, [0, 2])
    assert [len(one.model.layers) for one in (model, some)] == [3, 2]
    assert some.model.layers[1] is model.model.layers[2]


def test_the_bound_moves_with_what_stands():
    drafter = LayerSkip(llama(), layers=1)
    seen = Observation([1], Draft.chain([2, 3]), torch.zeros(3, 9), [], [4])
    drafter.observe(seen)
    assert drafter.bound == pytest.approx(0.801)
    for _ in range(5):
        drafter.observe(seen._replace(accepted=[0, 1]))
    assert drafter.matched > 0.9 and drafter.bound < 0.804
    drafter.reset()
    assert drafter.bound == 0.8
    scores = torch.tensor([0.9, 0.1]).log()
    assert drafter.goes_on(scores) and not drafter.goes_on(torch.tensor([0.5, 0.5]).log())


@pytest.mark.parametrize("layers", [0, 2, 1.5])
def test_a_number_of_layers_that_leaves_none_out_is_refused(layers):
    with pytest.raises(ValueError, match=f"^layers={layers}"):
        LayerSkip(llama(), layers=layers)


def test_it_has_a_name(tmp_path):
    llama(300).save_pretrained(tmp_path)
    verifier("llama").tokenizer.save_pretrained(tmp_path)
    drafter = resolve_drafter(f"layerskip,model={tmp_path},layers=1", 1, 15)
    assert isinstance(drafter, LayerSkip) and drafter.layers == 1
