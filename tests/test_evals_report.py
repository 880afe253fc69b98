"""Report, tuning and the command line, on a task and answers made up here."""

import csv
import errno
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import ScriptedEngine

from dlmdecode.evals.__main__ import main
from dlmdecode.evals.humaneval import HumanEval, program_of
from dlmdecode.evals.plan import Contender
from dlmdecode.evals.report import compare
from dlmdecode.evals.runner import Worker, evaluate
from dlmdecode.evals.summary import Run, areas, summarise
from dlmdecode.evals.task import Subset, Task, cut
from dlmdecode.evals.tuning import choose, parse_search, settings, spell, tune
from dlmdecode.tables import markdown


class Threes(Task):
    """Is `i` right? A sampler with threshold t is wrong where i % 10 is above 10 t."""

    name = "threes"

    def __init__(self, size=40):
        self.size = size

    def __len__(self):
        return self.size

    def prompt(self, i):
        return str(i)

    def score(self, i, text):
        return {"correct": text == f"right {i}", "strict": False}

    def describe(self):
        return {"task": self.name, "problems": self.size, "template": "plain", "shots": 0}


def generate(model, prompts, sampler, threshold=1.0, **options):
    """Lower thresholds are faster and wrong more often."""
    right = [int(prompt) % 10 < 10 * threshold for prompt in prompts]
    return SimpleNamespace(
        texts=[f"{'right' if r else 'wrong'} {p}" for r, p in zip(right, prompts, strict=True)],
        nfe=[max(int(20 * threshold), 1)] * len(prompts),
        new_tokens=[20] * len(prompts),
        stats={"forward_rows": 20.0 * len(prompts), "forward_positions": 1, "seconds": 0.1},
    )


def run(task, contenders, output):
    make_worker = partial(Worker, lambda: None, {}, make_engine=partial(ScriptedEngine, generate))
    return evaluate(task, contenders, output, make_worker, progress=False)


LABELS = ["vanilla", "threshold,threshold=0.9", "threshold,threshold=0.5"]


@pytest.fixture
def folder(tmp_path):
    run(Threes(), [Contender.parse(label) for label in LABELS], tmp_path / "run")
    return tmp_path / "run"


def test_a_summary_says_what_the_rows_say(folder):
    line = summarise(Run.read(folder), LABELS[1], "vanilla")
    assert (line.problems, line.correct, line.accuracy) == (40, 36, 90)
    assert (line.pair.gained, line.pair.lost) == (0, 4)
    assert line.nfe == 18 and line.tokens_per_forward == pytest.approx(20 / 18)
    assert line.agreement == 90 and line.extra == {"strict": 0}
    assert line.low < 90 < line.high


def test_aup_joins_a_samplers_settings_to_the_baseline(folder):
    found = Run.read(folder)
    lines = [summarise(found, label, "vanilla") for label in LABELS]
    area = areas(found, lines, "vanilla")
    assert area["vanilla"].points == ((1.0, 100.0),)
    assert area["threshold"].points == ((1.0, 100.0),)  # the others lost more than 5 points
    assert area["threshold"].outside == ((20 / 18, 90.0), (2.0, 50.0))


def test_the_report_writes_table_csv_and_plots(folder, tmp_path):
    found = compare([folder])
    found.write(tmp_path / "out")
    text = markdown(found.report()) + "\n"
    assert text == (tmp_path / "out" / "report.md").read_text()
    assert "| vanilla | 100.0 [91.2, 100.0] | 0.0 | baseline |" in text
    assert "-10.0 (+0 −4) | 0.125 |" in text
    assert "y_max 100.0 %, α 3, band 5 points" in text
    with open(tmp_path / "out" / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler"] for row in rows] == LABELS
    assert float(rows[2]["accuracy"]) == 50 and rows[2]["lost"] == "20"
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out" / "report.svg").read_text()


def test_several_runs_are_ranked_together(folder, tmp_path):
    run(Threes(20), [Contender.parse(label) for label in LABELS[:2]], tmp_path / "other")
    text = markdown(compare([folder, tmp_path / "other"]).report())
    assert "| vanilla | 100.0 | 1.00 | 1, 1 |" in text
    assert "| threshold,threshold=0.9 | 90.0 | 1.11 | 2, 2 |" in text


def test_an_unfinished_run_is_said_to_be_one(folder):
    results = folder / "results.jsonl"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:50]))
    text = markdown(compare([folder]).report())
    assert "**Unfinished**: threshold,threshold=0.9 has 10 of 40" in text


def test_a_report_says_how_many_prompts_were_cut(folder):
    results = folder / "results.jsonl"
    first, *others = results.read_text().splitlines(keepends=True)
    results.write_text(first.replace("{", '{"truncated": true, ', 1) + "".join(others))
    assert "1 of 120 prompts lost their beginning" in markdown(compare([folder]).report())


def test_a_report_where_nothing_can_be_written_is_printed(folder, tmp_path, capsys, monkeypatch):
    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("dlmdecode.evals.report.write_whole", refuse)
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out == markdown(compare([folder]).report()) + "\n"
    assert "not written" in said.err and "report.md" in said.err and "--output" in said.err
    assert main(["report", str(folder), "--output", str(tmp_path / "asked")]) == 2
    assert "report.md" in capsys.readouterr().err


def test_a_full_disk_is_an_error_that_names_the_file_of_the_plot(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*report\.png'"):
        compare([folder]).write(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run folder"):
        Run.read(tmp_path)
    assert main(["report", str(tmp_path)]) == 2


def test_tuning_takes_the_fastest_setting_within_the_budget_and_confirms_it(tmp_path):
    candidates = settings("threshold", {"threshold": [1.0, 0.9, 0.8, 0.5]}, 64)
    tasks = (Threes(40), Subset(Threes(80), range(40, 80)))
    vanilla = Contender.parse("vanilla")
    outcome = tune(tasks, candidates, vanilla, 10.0, run, tmp_path)
    assert outcome.chosen.options == {"threshold": 0.9} and outcome.confirmed
    assert json.loads((tmp_path / "preset.json").read_text())["options"] == {"threshold": 0.9}
    said = spell(outcome, "vanilla", 10.0)
    assert "sampler='threshold,threshold=0.9'" in said and "confirmed" in said


def test_tuning_does_not_confirm_what_fails_on_held_out_problems(tmp_path):
    easy = Subset(Threes(400), range(0, 400, 10))  # the last digit is 0: always right
    tasks = (easy, Subset(Threes(40), range(40)))
    candidates = settings("threshold", {"threshold": [0.9, 0.1]}, 64)
    outcome = tune(tasks, candidates, Contender.parse("vanilla"), 0.5, run, tmp_path)
    assert outcome.chosen.options == {"threshold": 0.1} and not outcome.confirmed
    assert "NOT within 0.5 points" in spell(outcome, "vanilla", 0.5)


def test_tuning_says_when_nothing_is_within_the_budget(tmp_path):
    candidates = settings("threshold", {"threshold": [0.5]}, 64)
    tasks = (Threes(), Threes())
    outcome = tune(tasks, candidates, Contender.parse("vanilla"), 0.5, run, tmp_path)
    assert outcome.chosen is None and choose(outcome.calibration, "vanilla", 0.5) is None
    assert "no setting stays within" in spell(outcome, "vanilla", 0.5)


def test_the_grid_is_what_is_asked_for_or_known_to_matter():
    assert parse_search(["a=1,none", "b=x"], {}) == {"a": [1, None], "b": ["x"]}
    assert "threshold" in parse_search([], {"threshold": 0.9})
    with pytest.raises(ValueError, match="nothing to search"):
        parse_search([], {"remasking": "random"})
    with pytest.raises(ValueError, match="more than --max-settings 3"):
        settings("threshold", {"threshold": [1, 2], "b": [1, 2]}, 3)


def test_splits_share_no_problem_and_depend_on_the_seed():
    one, two = Threes().split(0)
    assert sorted(one.chosen + two.chosen) == list(range(40))
    assert Threes().split(0)[0].chosen == one.chosen != Threes().split(1)[0].chosen
    assert one.id(0) == f"threes/{one.chosen[0]}"
    assert one.describe() != two.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["humaneval", "--sampler", "vanilla"], "--allow-code-execution"),
        (["arithmetic", "--sampler", "vanila"], "unknown sampler 'vanila'"),
        (["arithmetic", "--sampler", "auto"], "name the sampler here"),
        (["arithmetic", "--sampler", "threshold,treshold=1"], "threshold"),
        (["arithmetic", "--sampler", "vanilla", "--limit", "0"], "at least 1"),
        (["arithmetic", "--sampler", "vanilla", "--model", "/nowhere"], "no model"),
        (["arithmetic", "--sampler", "vanilla,x"], "option=value"),
        (["gsm8k", "--sampler", "vanilla", "--data", "/nowhere.jsonl"], "no such file"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    model = [] if "--model" in arguments else ["--model", str(stub_checkpoint(tmp_path))]
    assert main([*arguments, *model, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dlmdecode: error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def stub_checkpoint(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "llada"}')
    return folder


PROBLEM = {
    "task_id": "Local/0",
    "prompt": 'def twice(x):\n    """Two times x."""\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(f):\n    assert f(4) == 8\n",
}


@pytest.fixture
def humaneval(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(PROBLEM) + "\n")
    return lambda form: HumanEval(str(path), form, allow_code_execution=True)


def test_completions_are_cut_where_the_function_ends(humaneval):
    task = humaneval("completion")
    assert task.id(0) == "Local/0" and task.prompt(0) == PROBLEM["prompt"]
    assert task.grade(0, "    return 2 * x\n\ndef other(:\n    nonsense")
    assert not task.grade(0, "    return x\n")
    assert set(task.score(0, "")) == {"correct", "reason", "isolation"}


INSTRUCTED = [
    "Here:\n```python\ndef twice(x):\n    return 2 * x\n```\nDone.",
    "```\nimport math\n\n\ndef twice(x):\n    return int(math.prod([2, x]))\n```",
    "def twice(x):\n    return x + x\n",
    "First ```python\nprint(1)\n``` then\n```python\ndef twice(x):\n    return 2 * x\n```",
    "```python\n    return 2 * x\n```",
]


@pytest.mark.parametrize("text", INSTRUCTED)
def test_instructed_answers_are_found_in_their_code_block(humaneval, text):
    assert humaneval("instruct").grade(0, text)


def test_an_instructed_answer_without_the_function_fails(humaneval):
    for text in ["", "I cannot.", "```python\ndef thrice(x):\n    return 3 * x\n```"]:
        assert not humaneval("instruct").grade(0, text)
    assert program_of("```\n    return 1\n```", "f") == "    return 1"


def test_text_is_cut_at_the_first_stop_string():
    assert cut("a\nb\nQ: c", ["Q:", "\nb"]) == "a"
    assert cut("abc", ["x"]) == "abc"
