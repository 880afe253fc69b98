"""Evaluation tasks by name: those of this package, and one that lives outside it."""

import json
import sys
from importlib.metadata import EntryPoint
from typing import Annotated

import pytest

from dlmdecode.commands.cli import main
from dlmdecode.evals import registry
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.registry import register_task, registered_tasks


@pytest.fixture
def sums(monkeypatch):
    """The task of `outside_task.py`, as the entry point of an installed package offers it."""
    registered_tasks()
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    monkeypatch.delitem(sys.modules, "outside_task", raising=False)
    entry = EntryPoint("sums", "outside_task", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])


def said(capsys, *argv):
    try:
        code = main(["eval", *argv])
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), err


def test_the_tasks_of_this_package_are_listed_in_order():
    tasks = registered_tasks()
    assert [task.name for task in tasks] == ["arithmetic", "functions", "gsm8k", "humaneval"]
    assert all(task.help.endswith(".") for task in tasks)
    assert Arithmetic.name == "arithmetic"


@pytest.mark.parametrize(
    "task, options",
    [
        ("arithmetic", "--split {train,calibration,heldout,phrasing}"),
        ("functions", "--split {train,calibration,heldout,phrasing} --timeout "
         "--allow-code-execution --weak-isolation"),
        ("gsm8k", "--data --shots --shots-data --data-revision "
         "--template {gsm8k,cot,boxed,question}"),
        ("humaneval", "--data --form {completion,instruct} --timeout --allow-code-execution "
         "--weak-isolation"),
    ],
)  # fmt: skip
def test_a_tasks_parameters_are_its_options(capsys, task, options):
    shared = "--model --device --dtype --revision --output --limit --batch-size --chat --truncate"
    for command in ([task], ["tune", task]):
        code, out, _ = said(capsys, *command, "--help")
        assert code == 0
        assert [word for word in f"{shared} {options}".split() if word not in out] == []


def test_a_task_outside_the_package_runs_and_is_reported(sums, tmp_path, capsys):
    command = ["sums", "--largest", "9", "--form", "signs", "--negative", "--limit", "2",
               "--sampler", "vanilla", "--sampler", "threshold,threshold=0.3",
               "--max-new-tokens", "16", "--quiet", "--output", str(tmp_path)]  # fmt: skip
    code, table, err = said(capsys, *command)
    assert (code, err) == (0, "")
    assert "## sums, template {a} + {b} =, 0 shots, model tiny" in table
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["sums/0", "sums/1"] * 2
    assert said(capsys, "report", str(tmp_path))[:2] == (0, table)
    assert (tmp_path / "report.svg").exists()


def test_a_task_outside_the_package_is_tuned_on(sums, tmp_path, capsys):
    command = ["tune", "sums", "--sampler", "credit,alpha=0.5", "--search", "threshold=0.5,0.1",
               "--budget", "100", "--limit", "1", "--max-new-tokens", "16", "--quiet",
               "--output", str(tmp_path)]  # fmt: skip
    code, out, _ = said(capsys, *command)
    assert code == 0
    assert "sampler='credit,alpha=0.5,threshold=0." in out
    preset = json.loads((tmp_path / "preset.json").read_text())
    assert preset["sampler"] == "credit" and preset["options"]["alpha"] == 0.5


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--form", "sign"], "form='sign': give one of 'words', 'signs'; did you mean 'signs'?"),
        (["--largest", "many"], "largest='many': give a whole number"),
        (["--largest", "0"], "largest=0: give a whole number, at least 1"),
        (["--limit", "0"], "limit=0: give a whole number, at least 1"),
        (["--chat"], "chat=True: sums has no chat form: leave it out"),
        (["--split", "train"], "unrecognized arguments: --split train"),
    ],
)
def test_an_option_of_a_task_that_is_wrong_is_a_line_with_the_fix(
    sums, tmp_path, capsys, argv, message
):
    command = ["sums", "--sampler", "vanilla", "--output", str(tmp_path / "run"), *argv]
    code, out, err = said(capsys, *command)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_function_can_make_a_task_and_need_an_option(sums, capsys, tmp_path):
    @register_task("some")
    def some(split: Annotated[str, "of the problems"]) -> Arithmetic:
        """Some problems."""
        return Arithmetic(1, split)

    command = ["some", "--sampler", "vanilla", "--output", str(tmp_path), "--quiet"]
    assert "the following arguments are required: --split" in said(capsys, *command)[2]
    assert said(capsys, *command, "--split", "train", "--max-new-tokens", "16")[0] == 0


@pytest.mark.parametrize("name", ["arithmetic", "report", "tune", "two words"])
def test_a_name_that_is_taken_or_none_is_refused(sums, name):
    with pytest.raises(ValueError, match=f"name='{name}': "):
        register_task(name)(Arithmetic)
    assert Arithmetic.name == "arithmetic"
