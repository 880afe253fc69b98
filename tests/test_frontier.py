"""`dlmdecode eval frontier`: a sweep of samplers, its Pareto set, its picture and its preset."""

from __future__ import annotations

import builtins
import json
from types import SimpleNamespace

import pytest
from toy import micro

from dlmdecode.evals.__main__ import main
from dlmdecode.evals.frontier import pareto, sweep
from dlmdecode.evals.tuning import LADDERS


def line(name: str, accuracy: float, speed: float) -> SimpleNamespace:
    return SimpleNamespace(sampler=name, accuracy=accuracy, tokens_per_forward=speed)


def test_the_pareto_set_is_what_nothing_beats_in_both():
    lines = [line("a", 90, 1), line("b", 80, 5), line("c", 80, 4), line("d", 95, 0.5),
             line("e", 80, 5)]  # fmt: skip
    kept = pareto(lines, "tokens_per_forward")
    assert [each.sampler for each in kept] == ["d", "a", "b", "e"]


def test_a_sweep_takes_each_value_of_the_main_option_that_the_others_allow():
    model, arguments = micro("llada"), {"max_new_tokens": 16}
    labels = [each.label for each in sweep(["threshold", "frechet,delta=0.9"], model, arguments)]
    expected = [f"threshold,threshold={value}" for value in LADDERS["threshold"]]
    assert labels == [*expected, "frechet,delta=0.9"]
    names = {each.spec for each in sweep(None, model, arguments)}
    assert {"vanilla", "lopa", "wino"} <= names and "learn2pd" not in names  # it has no filter
    with pytest.raises(ValueError, match="filter"):
        sweep(["learn2pd"], model, arguments)


def test_the_command_writes_table_picture_and_preset_and_resumes(tmp_path, capsys, monkeypatch):
    command = ["frontier", "arithmetic", "--sampler", "factor", "--limit", "2", "--quiet",
               "--max-new-tokens", "96", "--budget", "100", "--output", str(tmp_path)]  # fmt: skip
    command += ["--baseline", "threshold"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert text.count("factor,factor=") >= len(LADDERS["factor"])
    assert "| TPF |" in text or "| TPF, time |" in text
    assert "AUP" in (tmp_path / "frontier.md").read_text()
    assert (tmp_path / "frontier.png").stat().st_size and (tmp_path / "frontier.svg").exists()
    assert json.loads((tmp_path / "preset.json").read_text())["sampler"] == "factor"
    results = tmp_path / "calibration" / "results.jsonl"
    before = results.read_bytes()
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(command) == 0 and results.read_bytes() == before
    assert "no picture: a picture needs matplotlib: pip install" in capsys.readouterr().out
