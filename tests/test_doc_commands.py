"""Every command that README and docs show runs here, but for its size, or is in `NOT_HERE`."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from test_docs import FENCE, PAGES, ROOT, names

from dlmdecode.commands.cli import build_parser, main

NOT_HERE = {  # what a command has in it, and why it is not run
    r"^pip install": "it changes the environment; the extras that it names are looked up",
    r"--engine ray|--replicas": "needs the extra 'ray': tests/test_evals_runner.py, test_serve.py",
    r"\.gguf": "needs a checkpoint of the hub",
    r"--tasks …": "needs the tasks' data of the hub: tests/test_evals_lm_eval.py has its own",
    r"^make (lint|test)": "CI runs it (.ci/run), and this test with it",
    r"^make docs": "tests/test_docs.py runs it",
    r"golden/run\.py": "CI runs it whole (.ci/run)",
}
SMALLER = {  # what a command is given on top, by its first words
    "generate --input": "--max-new-tokens 16",
    "generate": "--max-new-tokens 32",
    "infill": "",
    "speculate": "--max-new-tokens 16",
    "trace view": "",
    "trace plot": "",
    "trace": "--max-new-tokens 16",
    "bench": "--limit 2 --sampler threshold --max-new-tokens 32",
    "eval report": "",
    "eval tune": "--limit 1 --max-new-tokens 32 --budget 100",
    "eval frontier": "--limit 1 --max-new-tokens 32 --budget 100 --sampler factor,factor=1",
    "eval functions": "--limit 1 --max-new-tokens 32 --weak-isolation",
    "eval": "--limit 2 --max-new-tokens 32",
    "samplers": "",
    "caches": "",
    "models": "",
    "ngram": "",
    "chat": "--max-new-tokens 16",
}
SCRIPTS = {  # the same for what runs beside the command; these are slow
    "benchmarks/block_cache.py": "--problems 1 --batch 1 --max-new-tokens 8 --samplers threshold",
    "benchmarks/caches.py": "--problems 1 --max-new-tokens 16 --caches dual --output caches",
    "benchmarks/infill.py": "--limit 1 --slack 0 --weak-isolation",
    "benchmarks/oracle.py": "--limit 1 --batch-size 1 --max-new-tokens 16 --block-length 16",
    "benchmarks/suffix.py": "--problems 1 --whole 1 --batch 1 --lengths 32 --windows none 0",
    "benchmarks/ops.py": "--rows 2 --vocabulary 50000 --slots 4 --threads 1 --budget 0.001",
    "benchmarks/convergence.py": "--count 1 --batch 1 --max-new-tokens 32",
    "benchmarks/speculation.py": "--count 1 --ngram-texts 20 --max-new-tokens 8 "
    "--rows 'verifier alone'",
    "benchmarks/overlap.py": "--count 1 --max-new-tokens 16 --drafter suffix",
    "benchmarks/speculation_step.py": "--count 1 --max-new-tokens 16 --drafter lookup",
    "benchmarks/roofline.py": "--shape tiny --layers 2 --dtype float32 --prompt 8 "
    "--max-new-tokens 8 --block-length 8 --repeats 1",
    "benchmarks/trace.py": "--max-new-tokens 16 --repeats 1",
    "benchmarks/quantization.py": "--limit 1 --batch-size 1 --models tiny",
    "tests/fuzz_speculate.py": "--count 1 --drafter ngram --shape chain",
    "training.evaluate": "--n 1 --functions 1 --batch 1 --strangers strangers.jsonl",
    "training.filter": "--problems 2 --epochs 2 --max-new-tokens 32",
}
WORDS = {"NAME": "prophet", "CONFIG": "SDAR-8B", "TEXT": "corpus.txt", "--model …": "--model tiny"}
FILES = {"--input FILE": "--input prompts.jsonl", "--output FILE": "--output written.safetensors"}
BEGINS = r"^(\w+=\S+ )*(dlmdecode |python |make |pip |eval \")"
HUB = re.compile(r"^[A-Z][\w-]+/[\w.-]+$")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def shown(page: Path) -> list[str]:
    """The commands of a page in order, those in running text too."""
    found = []
    text = page.read_text(encoding="utf-8")
    for part in re.split(r"(^```.*?^```$)", text, flags=re.M | re.S):
        fence = FENCE.match(part + "\n")
        if fence is None:
            found += [inline.replace("\n", " ") for inline in INLINE.findall(part)]
        elif fence[1] in ("", "sh", "bash"):
            found += fence[2].replace("\\\n", " ").splitlines()
    return [line for line in found if re.match(BEGINS, line)]


def excused(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in NOT_HERE)


def words_of(command: str) -> list[str]:
    """The words as a shell would read them, with stand-ins for what a reader fills in."""
    for placeholder, word in (WORDS | FILES).items():
        command = re.sub(rf"(?<![\w-]){placeholder}(?!\w)", word, command)
    quoted = re.compile(r"\$'([^']*)'")
    command = quoted.sub(lambda m: shlex.quote(m[1].encode().decode("unicode_escape")), command)
    words = shlex.split(command, comments=True)
    return ["tiny-dream" if "Dream" in w else "tiny" if HUB.match(w) else w for w in words]


def mentioned(words: list[str]) -> bool:
    """Whether it is a command's name in a sentence, and no whole command."""
    return all(word.isalpha() and word.islower() for word in words) and words not in (
        ["samplers"],
        ["models"],
        ["caches"],
        ["chat"],
    )


ALL = [(page, command) for page in PAGES for command in shown(page)]
OURS = {page: [c for p, c in ALL if p == page and c.startswith("dlmdecode ")] for page in PAGES}
WITH_COMMANDS = [page for page in PAGES if OURS[page]]
SCRIPTED = sorted({c for _, c in ALL if re.match(r"^(\w+=\S+ )*python", c) and not excused(c)})
OTHERS = sorted({c for _, c in ALL if not re.match(r"^(dlmdecode|pip)|(\w+=\S+ )*python", c)})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    Path("prompt.txt").write_text("w1 w2")
    Path("prompts.jsonl").write_text('"w1"\n{"prompt": "w2"}\n')
    Path("tests").mkdir()
    for problems in ("strangers.jsonl", "tests/strangers-more.jsonl"):
        Path(problems).write_text('{"question": "What is 1 + 2?", "answer": "3"}\n' * 2)
    Path("corpus.txt").write_text("one two three\n")
    Path("benchmarks/results").mkdir(parents=True)
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", binaries)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_commands_are_found_in_fences_and_in_sentences():
    commands = [command for _, command in ALL]
    assert len(commands) > 60
    assert "make demo" in commands and "dlmdecode chat" in commands
    assert any(command.startswith("dlmdecode serve") for command in commands)
    assert all(any(re.search(pattern, c) for c in commands) for pattern in NOT_HERE)


def test_extras_that_are_to_be_installed_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {e for _, c in ALL for found in re.findall(r"dlmdecode\[([\w,-]+)\]", c)
              for e in found.split(",")}  # fmt: skip
    assert extras and extras <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_of_a_page_run_one_after_the_other(page, place, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    for command in OURS[page]:
        if excused(command) or "serve" in command or "|" in command:  # in tests of their own
            continue
        words = words_of(command)[1:]
        if mentioned(words):
            with pytest.raises(SystemExit) as exit:
                build_parser(*words[:2]).parse_args([*words, "--help"])
            assert exit.value.code == 0, command
            continue
        stdin = open(words[words.index("<") + 1] if "<" in words else "prompt.txt")
        words = words[: words.index("<")] if "<" in words else words
        more = next(m for begin, m in SMALLER.items() if " ".join(words).startswith(begin)).split()
        if "--steps" in words:  # as many positions as there are steps
            more = ["--max-new-tokens", words[words.index("--steps") + 1]]
        with stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            try:
                code = main([*words, *more])
            except SystemExit as error:  # an action that ends the command, as --list-drafters
                code = error.code
        assert code == 0, (command, capsys.readouterr().err)
    capsys.readouterr()


def succeeds(command: str | list[str], **how) -> None:
    shell = isinstance(command, str)
    program = {"executable": "/bin/bash"} if shell else {}
    done = subprocess.run(
        command, shell=shell, capture_output=True, text=True, timeout=600, **program, **how
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])


def script_of(command):
    """What `python` is given, and the name of the script among it."""
    words = [word for word in words_of(command) if not re.match(r"^[A-Z_]+=", word)][1:]
    return words, words[1] if words[0] == "-m" else words[0]


@pytest.mark.parametrize("command", SCRIPTED)
def test_a_short_run_of_each_script_is_known(command):
    assert script_of(command)[1] in SCRIPTS


@pytest.mark.slow
@pytest.mark.parametrize("command", SCRIPTED)
def test_scripts_of_the_pages_run(command, place):
    words, name = script_of(command)
    paths = [str(ROOT / w) if (ROOT / w).exists() and "/" in w else w for w in words]
    paths = [w if "results" not in w else str(place / "out") for w in paths]
    succeeds([sys.executable, *paths, *shlex.split(SCRIPTS[name])], cwd=place)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in OTHERS if not excused(c)])
def test_commands_of_make_and_of_shells_run(command, place):
    if command.startswith("make"):  # in the environment that is there
        environment = Path(sys.executable).parent.parent
        succeeds(["make", "-o", "install", f"VENV={environment}", *command.split()[1:]], cwd=ROOT)
    else:
        succeeds(command.split("#")[0], cwd=place)


@pytest.mark.slow
def test_a_command_in_a_pipe_runs(place):
    piped = [command for _, command in ALL if "|" in command]
    assert piped
    for command in piped:
        succeeds(f"set -o pipefail; {command}", cwd=place)


@pytest.mark.slow
def test_the_command_that_serves_answers_and_ends(place):
    pytest.importorskip("uvicorn")
    (command,) = {c for _, c in ALL if c.startswith("dlmdecode serve") and not excused(c)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert shutil.which("dlmdecode")
    server = subprocess.Popen([*words_of(command), "--port", str(port)])
    try:
        for _ in range(600):
            assert server.poll() is None, "the server has ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError("the server has not answered")
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
