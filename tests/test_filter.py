"""Learn2PD's filter is trained from a model's own traces and used where it was trained."""

import pytest
import torch
from toy import micro, prompts

import dlmdecode
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter
from training import filter as training


def test_a_filter_trained_on_traces_knows_right_from_wrong_and_speeds_decoding_up(tmp_path):
    model, rows = micro("llada"), prompts(4, 6, 5, 7)
    records = training.traces(model, rows, 8, 16)
    seen, right, masked = (torch.cat(parts) for parts in zip(*records, strict=True))
    assert seen.shape == right.shape == masked.shape
    assert 0 < right[masked].float().mean() < 1
    trained = training.fit(records, 8, 1500)
    precision, recall = training.quality(trained, records, 0.5)
    assert precision > float(right[masked].float().mean())
    assert recall > 0
    trained.save(tmp_path / "filter.safetensors")
    again = AcceptanceFilter.load(tmp_path / "filter.safetensors")
    assert torch.equal(again.linear1.weight, trained.linear1.weight)
    shape = {"max_new_tokens": 16, "block_length": 8, "eos": "ignore"}
    path = tmp_path / "filter.safetensors"
    out = dlmdecode.generate(model, rows, "learn2pd", filter=path, threshold=0.5, **shape)
    assert sum(out.nfe) < 16 * len(rows)


def test_without_a_filter_learn2pd_takes_the_one_beside_the_weights():
    model = dlmdecode.load("tiny")
    given = dlmdecode.sampler("learn2pd", filter=model.folder / "filter.safetensors").bind(model)
    found = dlmdecode.sampler("learn2pd").bind(model)
    weights = [part.select.filter.linear2.weight for part in (given, found)]
    assert torch.equal(*weights)
    assert dlmdecode.generate(model, "Tom has 2 eggs.", "learn2pd").nfe[0] < 128


def test_without_any_filter_the_error_says_how_to_train_one():
    with pytest.raises(ValueError, match="filter=None: .* comes with no .*training.filter"):
        dlmdecode.generate(micro("llada"), prompts(4), "learn2pd", max_new_tokens=32)
