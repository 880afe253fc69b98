"""Pages of the documentation that are made, not written: samplers, how to add parts, changes."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

import dlmdecode
from dlmdecode.commands.catalogue import markdown, preset_notes, record, show
from dlmdecode.registry import Registered, registered

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"!?\[([^\]]*)\]\((?:\.\./)+([^)]*)\)")
QUESTION = (
    "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many apples does Tom have now?"
)
LENGTH = 48
PARTNERS = {"prophet": "prophet,early=4.0"}  # so that it stops within the picture


def on_config(config: Any) -> Any:
    """Pages that other parts of the project may bring have their place once they are there."""
    if (ROOT / "docs" / "serving.md").exists():
        config.nav.insert(-5, {"Serving": "serving.md"})
    return config


def on_files(files: Files, config: Any) -> Files:
    def add(path: str, content: str) -> None:
        files.append(File.generated(config, path, content=content))

    model = dlmdecode.load("tiny", device="cpu")
    names = dlmdecode.list_samplers()
    table = re.sub(r"^\| `(\w+)`", r"| [`\1`](\1.md)", markdown(), flags=re.M)
    add("samplers/index.md", f"# Samplers\n\n{table}\n")
    for name in names:
        add(f"samplers/{name}.md", sampler_page(registered(name), model))
    add("first-look.md", notebook(ROOT / "docs" / "first-look.ipynb"))
    add("contributing.md", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    add("changes.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """Links to files of the repository are their names: they are no pages."""
    return OUTSIDE.sub(r"\1 (`\2`)", text.replace("](docs/", "]("))


def sampler_page(entry: Registered, model: Any) -> str:
    """What its docstrings say, its options, and what it does to a word problem."""
    module = sys.modules[entry.factory.__module__].__doc__ or ""
    known = record(entry)
    lines = [f"# {entry.name}", "", module.strip(), "", entry.factory.__doc__ or "", ""]
    lines += ["| | |", "|---|---|", f"| source | {entry.paper} |"]
    lines += [
        f"| slots | {', '.join(known['slots'])} |",
        f"| verified against | {entry.verified} |",
    ]
    if known["recorded"]:
        lines.append(f"| recorded cases | {', '.join(known['recorded'])} |")
    if entry.over is not None:
        lines.append(f"| where nothing else chooses positions | `{entry.over}` |")
    options = entry.options()
    if options:
        lines += ["", "## Options", "", "| option | default |", "|---|---|"]
        lines += [f"| `{name}` | `{show(value)}` |" for name, value in options.items()]
    lines += ["", *(f"Published for {note}.\n" for note in preset_notes(entry))]
    return "\n".join([*lines, picture(entry, model)])


def notebook(path: Path) -> str:
    """The page of a notebook, which is run for it: code and what it gave."""
    book = nbformat.read(path, as_version=4)
    kernel = book.metadata.kernelspec.name
    with TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(book, timeout=300, kernel_name=kernel, resources=where).execute()
    parts = []
    for cell in book.cells:
        code = cell.cell_type == "code"
        parts += [fenced(cell.source, "python"), *given(cell.outputs)] if code else [cell.source]
    link = "It is [docs/first-look.ipynb](../../docs/first-look.ipynb): run it and change it."
    return "\n\n".join([*parts, link]) + "\n"


def given(outputs: list[Any]) -> Iterator[str]:
    """What a cell printed, and what it drew."""
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    if printed:
        yield fenced(printed, "text")
    for output in outputs:
        if "image/png" in output.get("data", {}):
            encoded = output.data["image/png"].replace("\n", "")
            yield f'<img alt="what the cell draws" src="data:image/png;base64,{encoded}">'


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def picture(entry: Registered, model: Any) -> str:
    """The commit order of a word problem, as an SVG: position across, step down."""
    name = PARTNERS.get(entry.name, entry.name)
    try:
        out = dlmdecode.generate(model, QUESTION, name, max_new_tokens=LENGTH, trace=True)
    except (ValueError, TypeError) as error:
        return f"It has no picture here: {html.escape(str(error))}."
    assert out.trace is not None
    step = out.trace.steps[-1]
    order = out.trace.order()[int(step.start[0]) :][:LENGTH]
    high = max(len(out.trace), 1)
    cells = "".join(
        f'<rect x="{at * 10}" y="{(when - 1) * 100 / high:.2f}" width="9" '
        f'height="{100 / high:.2f}" fill="hsl({20 + 200 * when / high:.0f} 70% 50%)"/>'
        for at, when in enumerate(order)
        if when
    )
    box = f'<svg viewBox="0 0 {LENGTH * 10} 100" role="img" style="width:100%;height:10rem" '
    box += f'preserveAspectRatio="none" aria-label="commit order">{cells}</svg>'
    what = f"`{name}`: which step (down, of {high}) wrote which position (across) of a word problem"
    return f"## What it does\n\n{box}\n\n{what}, in {out.nfe[0]} forwards.\n"
