"""The benchmark of samplers and the demo, on the embedded model."""

import pytest
from toy import micro

from dlmdecode import load
from dlmdecode.commands.cli import main
from dlmdecode.evals import bench
from dlmdecode.evals.arithmetic import problem
from dlmdecode.tables import markdown


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A table of two samplers on four problems."""
    names, folder = ["threshold", "prophet+threshold"], tmp_path_factory.mktemp("run")
    scores = bench.measure(load("tiny"), names, 4, batch_size=3, max_new_tokens=64, output=folder)
    return scores, markdown(bench.report(scores)).splitlines()[2:]  # below the count of problems


def test_vanilla_comes_first_and_every_problem_counts_once(lines):
    scores, _ = lines
    assert [score.name for score in scores] == ["vanilla", "threshold", "prophet+threshold"]
    assert all(len(score.right) == 4 for score in scores)


def test_a_row_tells_accuracy_forwards_and_time(lines):
    scores, rows = lines
    vanilla = scores[0]
    cells = [cell.strip() for cell in rows[2].strip("|").split("|")]
    assert cells[0] == "vanilla"
    assert cells[1].startswith(f"{sum(vanilla.right) / 4:.1%} [")
    assert cells[2:] == [
        f"{vanilla.nfe / 4:.1f}",
        f"{vanilla.new_tokens / vanilla.nfe:.2f}",
        "1.00×",
    ]


def test_threshold_needs_fewer_forwards_than_vanilla(lines):
    scores, _ = lines
    assert scores[1].nfe < scores[0].nfe


def test_intervals_are_wilsons():
    score = bench.Score("x", [True] * 9 + [False], nfe=20, new_tokens=50, seconds=2.0)
    assert score.row(4.0) == ["x", "90.0% [59.6%, 98.2%]", "2.0", "2.50", "2.00×"]


def test_samplers_that_cannot_be_built_for_a_model_are_left_out():
    names = ["learn2pd", "threshold,threshold=0.5", "threshold,radius=3", "nothing"]
    assert bench.buildable(names, load("tiny")) == names[:2]
    assert bench.buildable(names, micro("llada")) == names[1:2]


def test_options_follow_the_name_and_stand_in_the_table(tmp_path):
    name = "threshold,threshold=0.0"
    scores = bench.measure(load("tiny"), [name], 1, 1, 64, tmp_path)
    assert [score.name for score in scores] == ["vanilla", name]
    assert scores[1].nfe <= 2  # a forward for each block


@pytest.mark.parametrize("option", ["--limit", "--batch-size", "--max-new-tokens"])
def test_a_count_below_one_is_refused(option, capsys):
    assert main(["bench", "samplers", option, "0"]) == 2
    name = option.removeprefix("--").replace("-", "_")
    assert f"{name}=0: give a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["treshold", "threshold,threshold=90"])
def test_a_wrong_sampler_is_named_before_any_is_run(wrong, tmp_path, capsys):
    path = tmp_path / "table.md"
    argv = ["bench", "samplers", "--sampler", "vanilla", "--sampler", wrong, "--output", str(path)]
    assert main(argv) == 2
    said = capsys.readouterr()
    assert wrong.rpartition("=")[2] in said.err and not said.out
    assert not list(tmp_path.iterdir())  # not even the folder of the run


def test_the_table_goes_to_a_file_and_the_run_goes_on_beside_it(tmp_path, capsys):
    path = tmp_path / "results" / "table.md"
    run = tmp_path / "results" / "table.md.run"

    def bench_of(limit, *more):
        argv = ["--sampler", "threshold", "--max-new-tokens", "32", "--output", str(path)]
        return main(["bench", "samplers", *argv, "--limit", str(limit), *more])

    assert bench_of(2) == 0
    assert path.read_text() == capsys.readouterr().out
    assert path.read_text().count("\n") == 6
    first = (run / "results.jsonl").read_text().splitlines()
    assert bench_of(3) == 0
    rows = (run / "results.jsonl").read_text().splitlines()
    assert len(rows) == 6 and set(first) <= set(rows)
    (run / "results.jsonl").write_text("\n".join(rows[:4]))  # as if killed while writing
    assert bench_of(3) == 0
    again = (run / "results.jsonl").read_text().splitlines()
    assert len(again) == 6 and again[:3] == rows[:3]
    assert path.read_text().startswith("3 held-out problems")
    capsys.readouterr()
    assert bench_of(3, "--batch-size", "1") == 2
    assert "batch_size: 16 there, 1 now" in capsys.readouterr().err


def test_the_demo_shows_question_texts_and_forwards(capsys):
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(problem(0).question)
    rows = [line for line in shown.splitlines() if line.startswith("|")][2:]
    for name, row in zip(("vanilla", "prophet", "threshold"), rows, strict=True):
        assert f"\n{name}: " in shown
        assert row.startswith(f"| {name} | ") and row.endswith(" | right |")


def test_a_run_in_another_dtype_is_another_one(tmp_path, capsys):
    argv = ["bench", "samplers", "--sampler", "threshold", "--max-new-tokens", "8"]
    argv += ["--output", str(tmp_path / "table.md"), "--limit"]
    assert main([*argv, "1"]) == 0
    assert main([*argv, "2", "--dtype", "bfloat16"]) == 2
    assert 'model.dtype: "auto" there, "bfloat16" now' in capsys.readouterr().err
