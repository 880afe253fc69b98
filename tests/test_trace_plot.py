"""Figures of traces, and what they are drawn from."""

import pytest
from test_viewer import run_of
from toy import micro, prompts

import dlmdecode
from dlmdecode.commands.cli import main
from dlmdecode.trace import Run, read
from dlmdecode.trace.drafts import last_number, matching, settled, texts
from dlmdecode.trace.plot import confidence, convergence, forwards, order


def test_an_answer_has_settled_from_the_last_change_on():
    assert settled(["1", "2", "3", "3", "3"]) == 3
    assert settled(["3"]) == 1
    assert settled([None, "3", None, "3"]) == 4


def test_an_answer_is_the_last_number_or_the_last_match():
    assert last_number("1 and 2,000 or -3") == "-3" and last_number("none") is None
    assert matching(r"= (\d+)")("= 4, = 5 6") == "5" and matching("x")("a") is None
    with pytest.raises(ValueError, match="answer='\\('"):
        matching("(")


def test_a_draft_is_what_is_written_and_proposals_for_the_rest():
    run = run_of(4, 2)
    run.steps[0]["drafts"] = {"row": [0, 0, 0], "position": [0, 1, 3], "token": [5, 6, 7]}
    assert list(texts(run, 0)) == ["w5 w6 w4 ", "w5 w6 w3 w4 "]


def test_the_last_draft_of_a_run_is_its_text(tmp_path):
    path = tmp_path / "run.jsonl"
    model = micro("llada")
    dlmdecode.generate(model, prompts(5, 8), "prophet", max_new_tokens=16, trace=path)
    (run,) = read(path)
    for row in range(2):
        *_, last = texts(run, row)
        whole = {}
        for step in run.steps:
            columns = (step["writes"][name] for name in ("row", "position", "token"))
            whole |= {at: token for own, at, token in zip(*columns, strict=True) if own == row}
        assert last == "".join(
            run.vocabulary[whole[at]] for at in sorted(whole) if whole[at] != 318
        )


def test_figures_are_drawn_from_the_numbers_of_a_run():
    run = run_of(4, 4)
    assert order(run).tolist() == [[1, 3], [2, 2], [3, 1], [4, 0]]
    assert forwards(run) == [4]
    assert confidence(run).round(2).tolist() == [0.57] * 4
    assert convergence(run, lambda text: text[:2]) == [1.0]
    assert convergence(run, lambda text: None) == []


def test_plot_draws_four_figures_and_says_what_settled(tmp_path, capsys):
    path, folder = tmp_path / "run.jsonl", tmp_path / "figures"
    dlmdecode.generate(micro("llada"), prompts(5), "threshold", max_new_tokens=16, trace=path)
    assert main(["trace", "plot", str(path), "--output", str(folder)]) == 0
    names = sorted(one.name for one in folder.iterdir())
    assert names == ["confidence.png", "convergence.png", "nfe.png", "order.png"]
    assert "answers settled by half of their steps" in capsys.readouterr().out


def test_a_run_without_steps_cannot_be_plotted(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    path.write_text('{"type":"run","version":1,"kind":"generate","rows":[]}\n')
    assert isinstance(read(path)[0], Run)
    assert main(["trace", "plot", str(path), "--output", str(tmp_path)]) == 2
    assert "with a step in it" in capsys.readouterr().err
