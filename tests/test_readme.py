"""What the README says: its table is the registry's, its example runs."""

import re
from pathlib import Path

import pytest
import torch
from toy import FAMILIES, micro, prompts

import dlmdecode
from dlmdecode import registry
from dlmdecode.commands import catalogue

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_samplers_is_the_registrys():
    start, end = "<!-- dlmdecode samplers --markdown -->\n", "\n<!-- end -->"
    table = README.split(start)[1].split(end)[0]
    assert table == catalogue.markdown()


def example() -> str:
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "@register" in b)
    return block


@pytest.fixture
def registered_example():
    dlmdecode.list_samplers()
    before = dict(registry.REGISTRY)
    exec(compile(example(), "README.md", "exec"), {"__name__": "example"})
    yield
    registry.REGISTRY.clear()
    registry.REGISTRY.update(before)


def test_the_example_of_a_sampler_is_short():
    assert len(example().splitlines()) <= 30


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_the_example_of_a_sampler_composes_and_batches(registered_example, family, cache):
    options = dict(beside=0.3, alone=0.8, cache=cache, max_new_tokens=16, block_length=8)
    batch = prompts(3, 9)
    out = dlmdecode.generate(micro(family), batch, "beside_text+prophet", **options)
    for index, prompt in enumerate(batch):
        alone = dlmdecode.generate(micro(family), prompt, "beside_text+prophet", **options)
        width = alone.sequences.shape[1]
        assert torch.equal(out.sequences[index, :width], alone.sequences[0])


def test_the_example_of_a_sampler_lowers_the_bar_beside_text(registered_example):
    options = dict(max_new_tokens=32, block_length=32, eos="ignore")
    strict = dlmdecode.generate(micro("llada"), prompts(4), "threshold", threshold=0.8, **options)
    eased = dlmdecode.generate(
        micro("llada"), prompts(4), "beside_text", alone=0.8, beside=0.1, **options
    )
    same = dlmdecode.generate(
        micro("llada"), prompts(4), "beside_text", alone=0.8, beside=0.8, **options
    )
    assert same.sequences.tolist() == strict.sequences.tolist()
    assert eased.nfe[0] < strict.nfe[0]


def test_commands_of_the_readme_exist(capsys):
    for command in sorted(set(re.findall(r"^dlmdecode (\w+)", README, re.M))):
        with pytest.raises(SystemExit) as exit:
            from dlmdecode.commands.cli import build_parser

            build_parser().parse_args([command, "--help"])
        assert exit.value.code == 0
        assert command in capsys.readouterr().out
