"""The tables in the pages that come from `benchmarks/results`: `python docs/tables.py` renews them.

Each stands between `<!-- table: NAME -->` and `<!-- end of table -->`, with NAME one of `TABLES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PAGES = Path(__file__).parent
RESULTS = PAGES.parent / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(\n<!-- end of table -->)", re.S)
DRAFTS = {
    "verifier alone": "verifier alone",
    "transformers' prompt lookup": "transformers' prompt lookup",
    "+ adaptive length": "path search, adaptive length",
    "FailFast": "FailFast",
    "threshold drafting": "threshold drafting",
    "suffix or threshold": "suffix, else threshold drafting",
    "fused: path search, suffix": "path search and suffix, fused",
    "lattice tree": "lattice tree",
    "suffix": "suffix",
    "recycling + suffix": "recycling + suffix",
    "n-grams + recycling": "n-grams + recycling",
    "n-grams + recycling + suffix": "n-grams + recycling + suffix",
}  # rows of `benchmarks/speculation.py`, and what the page calls them


def rendered(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *rest = ("| " + " | ".join(row) + " |" for row in [head, *rows])
    return "\n".join([first, "|" + "---|" * len(head), *rest])


def cells(file: str) -> list[list[str]]:
    """The rows of the first table in a Markdown file, without its head."""
    lines = (RESULTS / file).read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| "))
    body = lines[first + 2 :]
    last = next((i for i, line in enumerate(body) if not line.startswith("|")), len(body))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body[:last]]


def whole(file: str) -> str:
    """The table of a Markdown file as it is."""
    lines = (RESULTS / file).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def samplers(*folders: str, forwards_of_rows: bool = False) -> str:
    """Reports of `dlmdecode eval report`; the baseline is that of the first folder."""
    head = ["sampler", "right [95 % interval]", "against vanilla (exact McNemar)",
            "NFE a problem", *["rows of forwards"] * forwards_of_rows,
            "tokens per forward"]  # fmt: skip
    rows = []
    for folder in folders:
        for name, right, _, _, pair, p, nfe, of_rows, rate, *_ in cells(f"{folder}/report.md"):
            if pair == "baseline" and rows:
                continue
            found = re.search(r"\((.*)\)", pair)
            against = f"{found[1]}, p = {float(p):.2g}" if found else ""
            right = right.replace(" [", " % [")
            rows.append([name, right, against, nfe, *[of_rows] * forwards_of_rows, rate])
    return rendered(head, rows)


def caches(*folders: str) -> str:
    """Tables of `benchmarks/caches.py`, whose first line names the model."""
    head = ["model", "sampler", "cache", "right [95 % interval]", "difference", "p", "NFE",
            "positions a problem", "tokens per forward"]  # fmt: skip
    rows = []
    for folder in folders:
        model = (RESULTS / folder / "caches.md").read_text(encoding="utf-8").split(",")[0]
        for name, cache, right, more, p, nfe, places, rate in cells(f"{folder}/caches.md"):
            more, p = ("", "") if cache == "none" else (more.replace("-", "−"), p)
            right = right.replace("%", "").replace(" [", " % [")
            row = [f"`{model}`", name, cache, right, more, p, nfe, f"{int(places):,}", rate]
            rows.append(row)
    return rendered(head, rows)


def speculation(file: str) -> str:
    """The rows of `benchmarks/speculation.py` that the page is about."""
    head = ["draft", "speed", "tokens per verifier forward", "verifier's forwards", "drafter's",
            "texts that differ"]  # fmt: skip
    found = json.loads((RESULTS / file).read_text(encoding="utf-8"))["rows"]
    rows = [
        [
            DRAFTS[name],
            f"{found[name]['speed']:.2f}",
            f"{found[name]['tokens_per_forward']:.2f}",
            *(f"{found[name][f'{who}_forwards']:.0f}" for who in ("verifier", "drafter")),
            str(found[name]["different"]),
        ]
        for name in DRAFTS
        if name in found
    ]
    return rendered(head, rows)


def convergence(*models: str) -> str:
    """Tables of `benchmarks/convergence.py`."""
    head = ["model", "blocks", "eos", *(f"right at {share} %" for share in (25, 50, 75, 100)),
            "of those right at the end, settled by half", "median"]  # fmt: skip
    tables = ((model, cells(f"convergence/{model}.md")) for model in models)
    return rendered(head, ([f"`{model}`", *row] for model, table in tables for row in table))


TABLES: dict[str, Callable[[], str]] = {
    "samplers": lambda: samplers("arithmetic"),
    "samplers-slow": lambda: samplers("arithmetic-slow", "arithmetic-heavy", forwards_of_rows=True),
    "caches": lambda: caches("caches-tiny", "caches-tiny-dream"),
    "caches-samplers": lambda: caches("caches-samplers", "caches-slow", "caches-heavy"),
    "block-cache": lambda: whole("block-cache.md"),
    "quantization": lambda: whole("quantization.md"),
    "convergence": lambda: convergence("tiny", "tiny-dream"),
    "speculation": lambda: speculation("speculation-tiny.json"),
    "speculation-smollm2": lambda: speculation("speculation-smollm2.json"),
}


def renewed(page: str) -> str:
    """A page with its tables as the results have them now."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], page)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"renewed {path.name}")
