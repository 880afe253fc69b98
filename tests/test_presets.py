"""`sampler="auto"`: the preset beside the weights, or that of the model's family."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from toy import counted_forwards, micro, prompts

import dlmdecode
from dlmdecode import presets
from dlmdecode.presets import Preset, preset_of

SHAPE = {"max_new_tokens": 16, "eos": "ignore"}


@pytest.fixture
def recorded(monkeypatch):
    """A preset for LLaDA's family, and no other."""
    preset = Preset("factor", {"factor": 0.5, "block_length": 8}, "a run")
    monkeypatch.setattr(presets, "FAMILIES", {"llada": preset})
    return preset


def test_auto_is_the_preset_of_the_family_and_says_which(recorded):
    rows = prompts(5, 3)
    out = dlmdecode.generate(micro("llada"), rows, "auto", **SHAPE)
    named = dlmdecode.generate(micro("llada"), rows, "factor,factor=0.5", block_length=8, **SHAPE)
    assert torch.equal(out.sequences, named.sequences) and out.nfe == named.nfe
    assert out.preset == recorded and named.preset is None
    assert str(out.preset) == "factor,factor=0.5,block_length=8"


def test_what_is_given_beside_auto_goes_before_the_preset(recorded):
    rows = prompts(5)
    out = dlmdecode.generate(micro("llada"), rows, "auto", factor=2.0, **SHAPE)
    named = dlmdecode.generate(micro("llada"), rows, "factor", factor=2.0, block_length=8, **SHAPE)
    assert torch.equal(out.sequences, named.sequences)


def test_a_file_beside_the_weights_goes_before_the_family(recorded, tmp_path):
    model = copy.copy(micro("llada"))
    model.folder = tmp_path
    assert preset_of(model) == recorded
    (tmp_path / "preset.json").write_text(json.dumps({"sampler": "vanilla", "confirmed": True}))
    assert dlmdecode.generate(model, prompts(5), "auto", **SHAPE).preset.sampler == "vanilla"
    for text in ("threshold", "[]", '{"sampler": 3}', '{"sampler": "a", "options": 1}'):
        (tmp_path / "preset.json").write_text(text)
        with pytest.raises(ValueError, match="preset.json is no preset"):
            preset_of(model)


def test_without_a_preset_auto_is_refused_before_any_forward(recorded):
    with counted_forwards(micro("sdar")) as count:
        with pytest.raises(ValueError, match="family 'sdar' .there are: llada.*eval frontier"):
            dlmdecode.generate(micro("sdar"), prompts(4), "auto", **SHAPE)
    assert count.calls == 0


def test_what_is_given_under_its_full_name_goes_before_the_presets_own():
    how = {"max_new_tokens": 8}
    out = dlmdecode.generate(
        "tiny", "What is 2 + 3?", "auto", **how, **{"threshold.threshold": 0.5}
    )
    wanted = dlmdecode.generate("tiny", "What is 2 + 3?", "threshold", threshold=0.5, **how)
    assert torch.equal(out.sequences, wanted.sequences)


def test_a_preset_nested_too_deep_is_none(tmp_path):
    (tmp_path / "preset.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match="is no preset"):
        presets.read(tmp_path / "preset.json")
