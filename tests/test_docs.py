"""Every command and every piece of Python in README and docs runs, but for its size."""

import re
import shlex
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import dlmdecode
from dlmdecode import registry
from dlmdecode.commands.cli import build_parser, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SMALLER = {  # what a command is given on top, by its first words
    "generate --input": ["--max-new-tokens", "16"],
    "generate": ["--max-new-tokens", "32"],
    "infill": [],
    "speculate": ["--max-new-tokens", "16"],
    "trace view": [],
    "trace plot": [],
    "trace": ["--max-new-tokens", "16"],
    "bench": ["--limit", "2", "--sampler", "threshold", "--max-new-tokens", "32"],
    "eval report": [],
    "eval": ["--limit", "2", "--max-new-tokens", "32"],
    "samplers": [],
    "models": [],
}
ELSEWHERE = re.compile(r"\.gguf|FILE|DIR\b|CONFIG|--allow-code|serve")  # needs what is not here
SERVED = "127.0.0.1:8000"
HUB = re.compile(r"^[A-Z][\w-]+/[\w.-]+$")


def blocks(page: Path, *languages: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [body for language, body in found if language in languages]


def commands(page: Path) -> list[list[str]]:
    """The words of each `dlmdecode …` of a page, a redirected input last."""
    text = "\n".join(blocks(page, "", "sh", "bash")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("dlmdecode ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


WITH_COMMANDS = [page for page in PAGES if commands(page)]
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
names = lambda page: page.name  # noqa: E731


def stand_in(word: str) -> str:
    """An embedded model in place of one of the hub."""
    if not HUB.match(word):
        return word
    return "tiny-dream" if "Dream" in word else "tiny"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_of_a_page_are_understood(page):
    for words in commands(page):
        words = words[: words.index("<")] if "<" in words else words
        build_parser(*words[:2]).parse_args(words)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("prompt.txt").write_text("w1 w2")
    Path("prompts.jsonl").write_text('"w1"\n{"prompt": "w2"}\n')
    pytest.importorskip("matplotlib")
    for words in commands(page):
        if words[0] == "chat" or ELSEWHERE.search(" ".join(words)):
            continue
        source = nullcontext(None)
        if "<" in words:
            source, words = open(words[words.index("<") + 1]), words[: words.index("<")]
        words = list(map(stand_in, words))
        more = next(more for begin, more in SMALLER.items() if " ".join(words).startswith(begin))
        if "--steps" in words:  # as many positions as there are steps
            more = ["--max-new-tokens", words[words.index("--steps") + 1]]
        with source as file:
            if file is not None:
                monkeypatch.setattr(sys, "stdin", file)
            assert main([*words, *more]) == 0, (words, capsys.readouterr().err)
    capsys.readouterr()


@pytest.fixture
def registered():
    dlmdecode.list_samplers()
    before = dict(registry.REGISTRY)
    yield
    registry.REGISTRY.clear()
    registry.REGISTRY.update(before)


@contextmanager
def with_its_server(page, model):
    """The page's Python; where it asks the server of the page, one is there."""
    bodies = blocks(page, "python")
    if not any(SERVED in body for body in bodies):
        yield bodies
        return
    from test_serve import serving

    with serving(model, name="tiny") as server:
        yield [body.replace(SERVED, f"127.0.0.1:{server.port}") for body in bodies]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=names)
def test_python_of_a_page_runs(page, registered, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = dlmdecode.load("tiny", device="cpu")
    monkeypatch.setattr(dlmdecode, "load", lambda *_, **__: tiny)
    space = {
        "dlmdecode": dlmdecode,
        "model": tiny,
        "prompt": "Tom has 3 apples.",
        "question": "Tom has 3 apples. He buys 4 more. How many apples does Tom have?",
        "__name__": "page",
    }
    with with_its_server(page, tiny) as bodies:
        for body in bodies:
            exec(compile(body, page.name, "exec", dont_inherit=True), space)


def test_pages_of_the_site_are_in_its_navigation():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    known = {*re.findall(r"(\w+)\.md", config), "serving"}
    assert {page.stem for page in PAGES[1:]} <= known


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir"]
    done = subprocess.run([*command, tmp_path / "site"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "samplers" / "prophet.html").read_text(encoding="utf-8")
    assert "<svg" in page and "arXiv 2508.19982" in page
