"""`dlmdecode models`: the registry of families as a table, and the tensors of a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from toy import BLOCK_CAUSAL, FULL_ATTENTION, MODELS, micro

from dlmdecode.commands import models
from dlmdecode.commands.cli import main
from dlmdecode.models.families import FAMILIES
from dlmdecode.models.published import PUBLISHED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CASES = Path(__file__).parent / "golden" / "cases"
BILLIONS = {  # as the papers and cards say
    "LLaDA-8B": 8.0,
    "Dream-7B": 7.6,
    "iLLaDA-8B": 7.6,
    "SDAR-8B": 8.2,
    "LLaDA-MoE-7B-A1B": 7.4,
    "LLaDA2.0-mini": 16.3,
    "Stable-DiffCoder-8B": 8.3,
}


def test_the_table_of_families_is_the_registrys():
    start, end = "<!-- dlmdecode models --markdown -->\n", "\n<!-- end of models -->"
    assert README.split(start)[1].split(end)[0] == models.markdown()


def test_every_family_is_a_line_and_says_what_its_attention_is(capsys):
    assert main(["models", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(FAMILIES)
    for family, line in zip(FAMILIES, lines, strict=True):
        assert line["model_type"].startswith(", ".join(family.names))
        assert (line["attention"] == "full") == (family.kind.block_field is None)
    assert main(["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(FAMILIES)


@pytest.mark.parametrize("family", [*FULL_ATTENTION, *BLOCK_CAUSAL])
def test_what_a_line_says_is_what_its_model_does(family):
    model = micro(family)
    (entry,) = (one for one in FAMILIES if one.kind is type(model) and "mmada" not in one.names)
    line = models.record(entry)
    assert (line["attention"] == "full") == (model.block_length is None)
    assert line["shift"] == model.shift


def test_every_run_that_a_family_names_is_recorded_here():
    for family in FAMILIES:
        for name in (*family.recorded, *family.second):
            case = json.loads((CASES / f"{name}.jsonl").read_text().splitlines()[0])
            assert type(micro(case["model"].removesuffix("-micro"))) is family.kind


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_published_size_builds_without_memory(size):
    tensors = models.outline(models.configuration(size))
    assert all(tensor.device == torch.device("meta") for tensor in tensors.values())
    total = sum(tensor.numel() for tensor in tensors.values())
    assert round(total / 1e9, 1) == BILLIONS.get(size, round(total / 1e9, 1))


def test_the_tensors_of_a_configuration_are_those_of_its_checkpoint(capsys):
    folder = MODELS / "llada2-moe-micro"
    assert main(["models", "--tensors", str(folder)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    listed = dict(line.split("  ", 1) for line in lines)
    with safe_open(folder / "model.safetensors", "pt") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}
    assert {name: shape.strip() for name, shape in listed.items()} == {
        name: " × ".join(map(str, shape)) for name, shape in shapes.items()
    }
    assert last.startswith(f"{len(shapes)} tensors, ")
    assert models.tensors(str(folder / "config.json")).splitlines()[-1] == last


def test_what_is_no_configuration_is_refused_with_the_nearest_name(capsys):
    assert main(["models", "--tensors", "SDAR-9B"]) == 2
    assert "no configuration 'SDAR-9B'; did you mean 'SDAR-8B'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_layer_of_a_published_width_is_written_loaded_decoded_and_deleted(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "widths.py"
    command = [sys.executable, str(script), "SDAR-1.7B", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, numbers, *_, own = done.stdout.splitlines()[-1].split()
    assert size == "SDAR-1.7B" and int(numbers) == 67
    assert float(own) < 0.75  # the weights stay pages of their files
    assert not list(tmp_path.iterdir())
