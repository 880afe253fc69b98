"""Every piece of Python in README and docs runs, and the site builds."""

import importlib.util
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import dlmdecode
from dlmdecode import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SERVED = "127.0.0.1:8000"


def blocks(page: Path, *languages: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [body for language, body in found if language in languages]


def test_tables_of_the_pages_are_those_of_the_results():
    path = ROOT / "docs" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    told = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    placed = [name for text in told.values() for _, name, _ in tables.PLACE.findall(text)]
    assert sorted(placed) == sorted(tables.TABLES)
    for name, text in told.items():
        assert tables.renewed(text) == text, f"{name}: run python docs/tables.py"


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
names = lambda page: page.name  # noqa: E731


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
def test_the_site_builds_without_a_warning():
    pytest.importorskip("mkdocs")
    venv = Path(sys.executable).parent.parent  # the environment that is there
    command = ["make", "-o", "install", f"VENV={venv}", "docs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "build" / "docs" / "samplers" / "prophet.html").read_text(encoding="utf-8")
    assert "<svg" in page and "arXiv 2508.19982" in page
