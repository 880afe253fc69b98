"""A page that shows runs: one file of HTML, with nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from dlmdecode.checks import require
from dlmdecode.trace.file import Run

Columns = tuple[str, ...]
WRITES = ("position", "token", "rule", "confidence", "margin", "entropy")
DRAFTS = ("position", "token")
MOST = 16  # texts in one page


def page(runs: Sequence[Run], rows: Sequence[int] | None = None) -> str:
    """The page of `rows` of each run, of all of them where that is None.

    What the runs say stands in it as data: no text of theirs becomes markup or code, and the page's
    policy allows no script but its own.

    Raises:
        ValueError: a run has no such row, or there are more than 16 texts.
    """
    panels = [panel for run in runs for panel in panels_of(run, rows)]
    fix = f"a page shows {MOST}: pick some by --row"
    require(0 < len(panels) <= MOST, "runs", f"{len(panels)} texts", fix)
    return document("dlmdecode trace", panels)[0]


def document(
    title: str,
    panels: Sequence[dict[str, Any]],
    *,
    form: str = "",
    style: str = "",
    script: str = "",
    connects: str = "'none'",
) -> tuple[str, str]:
    """The viewer as HTML that opens with `panels`, and its policy, which stands in it, too.

    Args:
        form: HTML before the viewer, with a style and a script of its own.
        connects: where the script may ask for more.
    """
    parts = {name: asset(name) for name in ("page.html", "panel.js", "viewer.js", "viewer.css")}
    script = parts["panel.js"] + parts["viewer.js"] + script
    style = parts["viewer.css"] + style
    policy = (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        f"connect-src {connects}; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(panels, separators=(",", ":")).replace("<", "\\u003c")
    filled = {"policy": policy, "title": title, "style": style, "script": script, "data": data}
    return fill(parts["page.html"], filled | {"form": form}), policy


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with each {{name}} replaced."""
    text, *others = template.split("{{")
    for name, after in (part.split("}}", 1) for part in others):
        text += values[name] + after
    return text


def asset(name: str) -> str:
    return (files("dlmdecode.trace") / "assets" / name).read_text("utf-8")


def digest(text: str) -> str:
    """What a policy names an inline text by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def panels_of(run: Run, rows: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    """What the page is told of each text."""
    count = len(run.header["rows"])
    for row in range(count) if rows is None else rows:
        require(0 <= row < count, "row", row, f"the run has {count}, counted from 0")
        frames = list(FRAMES[run.header["kind"]](run, row))
        rules = dict.fromkeys(write[2] for frame in frames for write in frame["writes"])
        ends = frames[-1] if frames else {"nfe": 0, "seconds": 0.0}
        given = [step["given"] for step in run.steps if step.get("given")]
        length = run.header["rows"][row].get("length", 0)
        yield {
            "title": title(run) + (f" · text {row}" if count > 1 else ""),
            "prompt": run.header["rows"][row]["prompt"],
            "length": length,
            "mask": run.header.get("mask_id"),
            "eos": run.header.get("eos_ids", []),
            "vocabulary": run.vocabulary,
            "given": dict(pair for columns in given for pair in picked(columns, row, DRAFTS)),
            "rules": list(rules),
            "frames": frames,
            "facts": {
                "nfe": ends["nfe"],
                "seconds": ends["seconds"],
                "tokens": None if run.end is None else run.end["new_tokens"][row],
            },
        }


def title(run: Run) -> str:
    if run.header["kind"] == "speculate":
        return f"speculate: {run.header['drafter']} drafts"
    options = ",".join(f"{name}={value}" for name, value in run.header["options"].items())
    return f"{run.header['sampler']} ({options})" if options else run.header["sampler"]


def picked(columns: dict[str, list[Any]], row: int, names: Columns) -> Iterator[tuple[Any, ...]]:
    """The entries of a row."""
    entries = zip(*(columns[name] for name in names), strict=True)
    return (entry for own, entry in zip(columns["row"], entries, strict=True) if own == row)


def denoising(run: Run, row: int) -> Iterator[dict[str, Any]]:
    """The steps that a text took part in."""
    refreshes = 0
    for step in run.steps:
        if row in step["rows"]:
            index = step["rows"].index(row)
            yield {
                "seconds": step["seconds"],
                "nfe": step["nfe"][index],
                "refreshes": step["refreshes"] - refreshes,
                "lo": step["lo"][index],
                "hi": step["hi"][index],
                "stop": step["stop"][index],
                "confidence": step["confidence"][index],
                "writes": list(picked(step["writes"], row, WRITES)),
                "drafts": list(picked(step["drafts"], row, DRAFTS)),
            }
        refreshes = step["refreshes"]


def verifying(run: Run, row: int) -> Iterator[dict[str, Any]]:
    """The verifications of a text, as steps that write behind each other."""
    at = 0
    own = [step for step in run.steps if step["row"] == row]
    later = run.steps[run.steps.index(own[0]) :] if own else []
    ended = {step["row"] for step in run.steps} - {step["row"] for step in later}
    began = max((step["seconds"] for step in run.steps if step["row"] in ended), default=0.0)
    for step in own:
        rules = ["accepted draft"] * step["accepted"] + ["verifier"]
        words = step["written"]
        writes = [
            (at + i, id, rules[min(i, len(rules) - 1)], None, None, None)
            for i, id in enumerate(words)
        ]
        stands = set(step["path"])
        yield {
            "seconds": round(step["seconds"] - began, 6),
            "nfe": step["step"],
            "lo": at,
            "hi": at + len(words),
            "stop": at + len(words),
            "writes": writes,
            "drafts": [],
            "rejected": [id for node, id in enumerate(step["draft"]) if node not in stands],
        }
        at += len(words)


FRAMES = {"generate": denoising, "speculate": verifying}
