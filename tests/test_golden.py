"""Every recorded case of the authors' own code on our loop: identical tokens, equal forwards.

A tenth of the cases runs here; `python tests/golden/run.py tests/golden` runs them all, as CI does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dlmdecode.caches.registry import REGISTRY as CACHES
from dlmdecode.registry import list_samplers, registered

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import run  # noqa: E402
from harness import Runner, read_cases  # noqa: E402
from methods import DELIBERATE, METHODS  # noqa: E402

RUNNER = Runner(GOLDEN)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_recorded_cases_give_identical_tokens_and_forwards(method):
    cases = list(read_cases(GOLDEN, method))
    results = [RUNNER.judge(case) for case in cases[::10]]
    assert results
    assert not [result for result in results if result.verdict == "mismatched"]


def test_a_wrong_token_or_a_forward_too_many_is_a_mismatch():
    case = next(read_cases(GOLDEN, "fastdllm"))
    assert RUNNER.judge(case).verdict == "matched"
    assert RUNNER.judge(case | {"nfe": case["nfe"] + 1}).verdict == "mismatched"
    output = case["output"][:-1] + [(case["output"][-1] + 1) % 318]
    assert RUNNER.judge(case | {"output": output}).verdict == "mismatched"


def test_the_command_counts_verdicts_and_fails_on_a_mismatch(tmp_path, capsys):
    home = tmp_path / "cases"
    home.mkdir()
    (tmp_path / "models").symlink_to(GOLDEN / "models")
    line = (GOLDEN / "cases" / "fastdllm.jsonl").read_text().splitlines()[0]
    (home / "fastdllm.jsonl").write_text(line + "\n")
    assert run.main([str(tmp_path), "--method", "fastdllm"]) == 0
    assert "fastdllm" in capsys.readouterr().out
    (home / "fastdllm.jsonl").write_text(line.replace('"nfe":', '"nfe":9') + "\n")
    assert run.main([str(tmp_path)]) == 1


def test_every_run_that_a_sampler_or_a_cache_names_is_recorded_here():
    caches = [CACHES.entry(name) for name in CACHES.names()]
    for entry in [*map(registered, list_samplers()), *caches]:
        for cases in (*entry.recorded, *entry.second):
            assert cases in METHODS and (GOLDEN / "cases" / f"{cases}.jsonl").is_file(), cases


def test_every_deliberate_difference_is_in_the_documentation():
    text = (GOLDEN.parent.parent / "docs" / "golden.md").read_text()
    reasons = [reason for rules in DELIBERATE.values() for _, reason in rules]
    assert reasons
    assert all(reason in text for reason in reasons)


def test_lossless_freedave_needs_fewer_forwards_than_its_static_baseline():
    cases = [
        case
        for case in read_cases(GOLDEN, "freedave")
        if case["params"]["confidence_threshold"] is None
        and not case["params"]["eager_acceptance_mode"]
    ][::6]
    saved = 0
    for case in cases:
        assert RUNNER.judge(case).verdict == "matched"
        assert case["nfe"] <= case["extra"]["baseline_nfe"]
        saved += case["extra"]["baseline_nfe"] - case["nfe"]
    assert saved > 0
