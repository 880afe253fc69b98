"""What a terminal is shown: the canvas filling up, the steps."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, TextIO

from dlmdecode.console import printable, without_controls
from dlmdecode.decoding.trace import Step
from dlmdecode.generation import Generation

MASK, EOS = "░", "·"
FRESH, DIM, PLAIN = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"
DOUBTS = ((0.5, "\x1b[31m"), (0.9, "\x1b[33m"))  # written with less confidence than this
ERASE = "\x1b[{}A\r\x1b[J"  # up, to the left, clear what is below


def show_texts(
    model: Any,
    arguments: argparse.Namespace,
    options: dict[str, Any],
    decode: Callable[[CanvasView | None], Generation],
) -> list[str]:
    """Print, and return, the texts that `decode(on_step)` gives; a terminal shows the canvas."""
    shows = sys.stdout.isatty() and not arguments.json and os.environ.get("TERM") != "dumb"
    live = shows and options.get("num_return_sequences", 1) == 1
    view = CanvasView(model, sys.stdout) if live else None
    try:
        out = decode(view)
    finally:
        if view is not None:
            view.clear()
    if out.preset is not None:
        print(f"sampler: {out.preset} ({out.preset.source})", file=sys.stderr)
    name = str(out.preset or arguments.sampler)
    texts = out.texts or [""] * len(out.nfe)
    for i, (text, nfe, new_tokens) in enumerate(zip(texts, out.nfe, out.new_tokens, strict=True)):
        record: dict[str, Any] = {"text": text, "sampler": name, "options": options}
        record |= {"nfe": nfe, "new_tokens": new_tokens, "stats": out.stats}
        record |= {"gaps": out.gaps[i]} if out.gaps else {}
        print(json.dumps(record) if arguments.json else printable(text, sys.stdout))
    if view is not None:
        print(view.summary(out))
    return texts


class CanvasView:
    """Redraws one row's canvas after each step: `░` where a mask is left, new tokens highlighted.

    Masks outside the open block are dim; what was written without much confidence is yellow or red.
    An `on_step` of `generate`. `NO_COLOR` (no-color.org) leaves colours out.
    """

    def __init__(self, model: Any, out: TextIO):
        self.model, self.out = model, out
        self.color = not os.environ.get("NO_COLOR")
        self.drawn = 0  # lines on the screen now
        self.sure: dict[int, float] = {}  # confidence of what was written, by position

    def __call__(self, step: Step) -> None:
        size = shutil.get_terminal_size()
        lines = wrap(self.pieces(step), size.columns - 1)
        lines = lines[-max(size.lines - 3, 1) :]
        body = "\n".join("".join(self.paint(*piece) for piece in line) for line in lines)
        self.clear()
        self.out.write(f"{body}\n{self.paint(DIM, self.status(step)[: size.columns - 1])}\n")
        self.out.flush()
        self.drawn = len(lines) + 1

    def clear(self) -> None:
        """Take the picture off the screen."""
        if self.drawn:
            self.out.write(ERASE.format(self.drawn))
        self.drawn = 0

    def pieces(self, step: Step) -> Iterator[tuple[str, str]]:
        """(style, text) of runs of positions of one kind, from the first changeable position on."""
        tokens, changed = step.sequences[0].tolist(), step.changed[0].tolist()
        start, stop = int(step.start[0]), int(step.stop[0])
        lo, hi, confidence = int(step.lo[0]), int(step.hi[0]), step.confidence[0].tolist()
        self.sure |= {at: confidence[at] for at in range(start, stop) if changed[at]}

        def kind(at: int) -> tuple[str, bool]:
            if tokens[at] == self.model.mask_id:
                return PLAIN if lo <= at < hi else DIM, True
            return FRESH if changed[at] else doubt(self.sure.get(at, 1.0)), False

        for (style, masked), run in groupby(range(start, stop), kind):
            ids = [tokens[at] for at in run]
            yield style, MASK * len(ids) if masked else readable(self.model, ids)

    def paint(self, style: str, text: str) -> str:
        return text if style == PLAIN or not self.color else f"{style}{text}{PLAIN}"

    def status(self, step: Step) -> str:
        start, nfe = int(step.start[0]), int(step.nfe[0])
        written = int(step.length[0]) - int(step.masks_left[0])
        block = f"{int(step.lo[0]) - start}–{int(step.hi[0]) - start - 1}"
        return f"block {block} · NFE {nfe} · {written / nfe:.1f} tokens per forward"

    def summary(self, out: Generation) -> str:
        """The line under a finished text."""
        nfe, seconds = out.nfe[0], out.stats["seconds"]
        line = f"{out.new_tokens[0]} tokens · NFE {nfe} · "
        line += f"{out.stats['tokens_per_forward']:.1f} tokens per forward · {seconds:.2f} s"
        return self.paint(DIM, line)


class StepPrinter:
    """A step as a line: which positions of the text it changed, to what, and how sure it was."""

    def __init__(self, model: Any, as_json: bool = False):
        self.model, self.as_json = model, as_json

    def __call__(self, step: Step) -> str:
        return json.dumps(self.record(step)) if self.as_json else self.line(step)

    def record(self, step: Step) -> dict[str, Any]:
        """Positions count from the start of the text; a token that is the mask was taken back."""
        start, tokens = int(step.start[0]), step.sequences[0].tolist()
        changes = []
        for at in step.changed[0].nonzero()[:, 0].tolist():
            confidence = float(step.confidence[0, at])
            change = {"position": at - start, "token": tokens[at]}
            if self.model.tokenizer is not None:
                change["text"] = self.model.tokenizer.decode([tokens[at]])
            change["confidence"] = round(confidence, 4) if math.isfinite(confidence) else None
            changes.append(change)
        block = [int(step.lo[0]) - start, int(step.hi[0]) - start]
        record = {"step": step.number, "nfe": int(step.nfe[0]), "block": block}
        return record | {"masks_left": int(step.masks_left[0]), "changed": changes}

    def line(self, step: Step) -> str:
        record = self.record(step)
        words = []
        ends = groupby(record["changed"], lambda change: change["token"] in self.model.eos_ids)
        for is_end, run in ends:
            changes = list(run)
            words += (
                [f"{changes[0]['position']}:EOS×{len(changes)}"]
                if is_end
                else [self.word(change) for change in changes]
            )
        lo, hi = record["block"]
        head = f"step {record['step']:>3}  NFE {record['nfe']:>3}  block {lo:>3}–{hi - 1:<3}"
        return f"{head}  {record['masks_left']:>3} left  {'  '.join(words)}"

    def word(self, change: dict[str, Any]) -> str:
        if change["token"] == self.model.mask_id:
            return f"{change['position']}:{MASK}"
        what = repr(change["text"]) if "text" in change else change["token"]
        sure = "" if change["confidence"] is None else f" {change['confidence']:.2f}"
        return f"{change['position']}:{what}{sure}"


def doubt(confidence: float) -> str:
    """The style of a token that was written with this confidence; of ranks below 0 it says none."""
    return next((style for least, style in DOUBTS if 0 <= confidence < least), PLAIN)


def readable(model: Any, ids: list[int]) -> str:
    """Text of a run of tokens, each EOS as a dot."""
    text = ""
    for is_end, run in groupby(ids, lambda id: id in model.eos_ids):
        some = list(run)
        text += EOS * len(some) if is_end else decoded(model, some)
    return text


def decoded(model: Any, ids: list[int]) -> str:
    if model.tokenizer is None:
        return " ".join(map(str, ids)) + " "
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    return without_controls(text).replace("\t", " ")


def wrap(pieces: Iterator[tuple[str, str]], width: int) -> list[list[tuple[str, str]]]:
    """Lines of at most `width` columns, each a list of (style, text)."""
    lines: list[list[tuple[str, str]]] = [[]]
    column = 0
    for style, text in pieces:
        for char in text:
            wide = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if char == "\n" or column + wide > width:
                lines.append([])
                column = 0
            if char == "\n":
                continue
            if lines[-1] and lines[-1][-1][0] == style:
                lines[-1][-1] = (style, lines[-1][-1][1] + char)
            else:
                lines[-1].append((style, char))
            column += wide
    return lines
