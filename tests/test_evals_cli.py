"""`dlmdecode eval` from the arguments to the files, with the embedded model."""

import json
import shlex
import signal
import subprocess
import sys
import time
from functools import partial

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


def test_a_larger_limit_extends_a_finished_run(tmp_path, capsys):
    def command(limit):
        return ["arithmetic", "--sampler", "threshold", "--limit", str(limit), "--batch-size", "1",
                "--max-new-tokens", "32", "--quiet", "--output", str(tmp_path / "run")]  # fmt: skip

    results = tmp_path / "run" / "results.jsonl"
    assert main(command(2)) == 0
    first = results.read_bytes()
    assert main(command(4)) == 0
    assert results.read_bytes().startswith(first) and results.read_bytes().count(b"\n") == 4
    assert main(command(4)) == 0
    capsys.readouterr()
    assert main(command(3)) == 2
    assert "(task.problems: 4 there, 3 now)" in capsys.readouterr().err


def test_a_run_that_was_interrupted_says_how_to_go_on_and_does(tmp_path):
    output = tmp_path / "a run"
    command = [sys.executable, "-m", "dlmdecode", "eval", "arithmetic", "--sampler", "vanilla",
               "--limit", "4", "--batch-size", "1", "--max-new-tokens", "24", "--quiet",
               "--output", str(output)]  # fmt: skip
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background it is deaf
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    results = output / "results.jsonl"
    while not (results.exists() and results.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    kept = results.read_bytes()
    assert 0 < kept.count(b"\n") < 4
    told = next(line for line in said.splitlines() if "to go on: " in line)
    assert told.startswith(f"what is done is kept in {output}; ")
    again = shlex.split(told.partition("to go on: ")[2])
    assert again == command
    assert subprocess.run(again, capture_output=True).returncode == 0
    lines = results.read_bytes().splitlines()
    assert len(lines) == 4 and set(kept.splitlines()) <= set(lines)


def test_help_names_what_is_inside_the_commands(capsys):
    from dlmdecode.commands.cli import main as command

    for arguments, named in [
        ([], ["eval tune", "--engine ray", "ngram build", "bench samplers", "lm_eval"]),
        (["eval"], ["tune", "report"]),
        (["eval", "gsm8k"], ["Ray cluster", "extends a run"]),
    ]:
        with pytest.raises(SystemExit):
            command([*arguments, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert [word for word in named if word not in said] == []


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


def test_tuning_goes_on_with_more_problems_whatever_they_choose(tmp_path, capsys):
    command = ["tune", "arithmetic", "--sampler", "threshold", "--search", "threshold=0.3,0.01",
               "--baseline", "threshold,threshold=0.9", "--max-new-tokens", "32",
               "--quiet", "--output", str(tmp_path)]  # fmt: skip
    preset = tmp_path / "preset.json"
    assert main([*command, "--limit", "1", "--budget", "100"]) == 0 and preset.is_file()
    other = json.loads(preset.read_text()) | {"options": {"threshold": 0.5}}
    (tmp_path / "heldout" / "other").mkdir()  # of another choice
    preset.write_text(json.dumps(other))
    assert main([*command, "--limit", "2", "--budget", "100"]) == 0
    assert json.loads(preset.read_text()) != other
    code = main([*command, "--limit", "3", "--budget", "0"])
    assert preset.is_file() == ("no setting stays" not in capsys.readouterr().out), code
