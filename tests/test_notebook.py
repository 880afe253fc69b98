"""The notebook of the docs runs from its first cell to its last."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first-look.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each code cell gives, in a folder of its own."""
    reason = "the notebook is run with nbclient and ipykernel: pip install 'dlmdecode[docs]'"
    pytest.importorskip("ipykernel", reason=reason)
    pytest.importorskip("matplotlib", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    book = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    kernel = book.metadata.kernelspec.name
    nbclient.NotebookClient(book, timeout=300, kernel_name=kernel, resources=folder).execute()
    return [cell.outputs for cell in book.cells if cell.cell_type == "code"]


def printed(outputs):
    return "".join(one.get("text", "") for one in outputs)


def test_it_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)


def test_it_shows_a_text_a_picture_samplers_and_a_gap(outputs):
    first, picture, samplers, gap = outputs
    assert "####" in printed(first) and "forwards" in printed(first)
    assert any("image/png" in one.get("data", {}) for one in picture)
    lines = printed(samplers).splitlines()
    assert len(lines) == 5 and lines[0].endswith("#### 15")
    forwards = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert forwards["threshold"] < forwards["vanilla"]
    assert "items = [item + 4 for item in items]\n" in printed(gap)
