"""`dlmdecode eval` from the arguments to the files, with the embedded model."""

import json

import pytest

from dlmdecode.evals.__main__ import main

SHORT = ["--limit", "3", "--max-new-tokens", "32", "--quiet"]


def test_arithmetic_runs_resumes_and_reports(tmp_path, capsys):
    samplers = ["--sampler", "threshold,threshold=0.8", "--sampler", "adablock+credit"]
    command = ["arithmetic", *samplers, *SHORT, "--output", str(tmp_path / "run")]
    assert main(command) == 0
    table = capsys.readouterr().out
    results = tmp_path / "run" / "results.jsonl"
    before = results.read_bytes()
    rows = [json.loads(line) for line in before.splitlines()]
    assert [row["sampler"] for row in rows] == [samplers[1]] * 3 + [samplers[3]] * 3
    for row in rows:
        assert {"id", "correct", "text", "nfe", "new_tokens", "seconds"} <= row.keys()
        assert 1 <= row["nfe"] <= 32 and 0 <= row["new_tokens"] <= 32 and row["seconds"] > 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["samplers"][0]["options"] == {"threshold": 0.8}
    assert len(record["model"]["weights_sha256"]) == 64
    assert main(command) == 0 and results.read_bytes() == before
    assert capsys.readouterr().out == table
    assert main([*command, "--seed", "1"]) == 2
    assert "arguments.seed: 0 there, 1 now" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.strip() == table.strip()
    assert (tmp_path / "report" / "report.svg").exists()


def test_prompts_too_long_for_the_model_are_refused_or_cut_on_request(tmp_path, capsys):
    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"question": "How many? " * 300, "answer": "1\n#### 1"}) + "\n")
    command = ["gsm8k", "--data", str(data), "--shots", "0", "--sampler", "threshold",
               "--max-new-tokens", "32", "--quiet", "--output", str(tmp_path / "run")]  # fmt: skip
    assert main(command) == 2
    assert "max_new_tokens=32" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "cut"), "--truncate"]) == 0
    row = json.loads((tmp_path / "cut" / "results.jsonl").read_text())
    assert row["truncated"] is True


@pytest.mark.parametrize("budget", ["100", "0"])
def test_tuning_prints_a_preset_or_says_that_there_is_none(tmp_path, capsys, budget):
    command = ["tune", "arithmetic", "--sampler", "threshold", "--search", "threshold=0.3,0.01",
               "--baseline", "threshold,threshold=0.9", "--budget", budget, *SHORT,
               "--output", str(tmp_path)]  # fmt: skip
    found = main(command)
    said = capsys.readouterr().out
    assert said.count("threshold,threshold=0.3") >= 1 and "threshold,threshold=0.01" in said
    if budget == "100":  # nothing is too inaccurate
        preset = json.loads((tmp_path / "preset.json").read_text())
        assert found == 0 and preset["confirmed"] is True
        fastest = said.splitlines()[1].split()[-1]
        assert said.endswith(f"--sampler {fastest}\n")
        assert fastest == f"threshold,threshold={preset['options']['threshold']}"
    else:
        assert (found == 0) == (": confirmed" in said)
