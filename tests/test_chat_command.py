"""`dlmdecode chat`, and what a shell is told that completes a line."""

import io
import os
import subprocess
import sys

import pytest
from test_cli import SMALL, folder, run  # noqa: F401

import dlmdecode
from dlmdecode.console import sampler_names


@pytest.fixture
def chat(run, folder, monkeypatch):  # noqa: F811
    def chat(*lines, argv=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code, out, err = run("chat", "--model", folder, *SMALL, *argv)
        return code, out.splitlines(), err

    return chat


def answer(folder, *texts, system=None):  # noqa: F811
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    model = dlmdecode.load(folder)
    return dlmdecode.generate(model, messages, max_new_tokens=16, block_length=8).texts[0].strip()


def test_a_turn_sees_those_before_it(chat, folder):  # noqa: F811
    first = answer(folder, "w1")
    second = answer(folder, "w1", first, "w2")
    assert chat("w1", "", "w2") == (0, [first, second], "")
    assert second != answer(folder, "w2")


def test_a_byte_order_mark_before_the_first_line_is_no_text(chat, folder):  # noqa: F811
    assert chat("\ufeffw1") == (0, [answer(folder, "w1")], "")


def test_standard_input_is_one_piece(run, folder):  # noqa: F811
    code, out, err = run("infill", "-", "3", "-", "--model", folder)
    assert (code, out) == (2, "") and "PIECE='-': standard input is read once" in err


def test_turns_can_be_forgotten(chat, folder):  # noqa: F811
    first, other = answer(folder, "w1"), answer(folder, "w2")
    assert chat("w1", "/new", "w2")[1] == [first, other]
    assert chat("w1", "/undo", "w2")[1] == [first, other]
    told = answer(folder, "w2", system="w7")
    assert chat("/undo", "w2", argv=("--system", "w7"))[1] == [told]


def test_a_turn_that_is_too_long_is_left_out(chat, folder):  # noqa: F811
    code, out, err = chat("w1", "w1 " * 20000, "w2")
    first = answer(folder, "w1")
    assert code == 0 and out == [first, answer(folder, "w1", first, "w2")]
    assert err.startswith("dlmdecode: ") and err.count("\n") == 1


def test_bad_options_end_the_chat(chat):
    code, out, err = chat("w1", argv=("--sampler", "profet"))
    assert (code, out) == (2, []) and "did you mean" in err


def completions(line):
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "dlmdecode"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def test_a_shell_completes_commands_options_and_samplers():
    pytest.importorskip("argcomplete")
    assert {"generate", "trace", "speculate", "chat"} <= set(completions("dlmdecode "))
    assert "--drafter" in completions("dlmdecode speculate x --dra")
    assert completions("dlmdecode generate x --sampler adablock+pro") == ["adablock+prophet"]


def test_the_last_name_of_a_composition_is_completed():
    assert "adablock+credit" in sampler_names("adablock+cr")
    assert "credit" in sampler_names("")
