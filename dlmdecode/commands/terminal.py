"""What the commands that decode print: texts, or the steps that wrote them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from dlmdecode.commands.canvas import MASK, CanvasView
from dlmdecode.console import printable, terminal
from dlmdecode.decoding.trace import Step
from dlmdecode.generation import Generation


def show_texts(
    model: Any,
    arguments: argparse.Namespace,
    options: dict[str, Any],
    decode: Callable[[CanvasView | None], Generation],
) -> Generation:
    """Print what `decode(on_step)` gives, after the canvas itself on a terminal; gives it back."""
    single = options.get("num_return_sequences", 1) == 1
    with watching(model, single and not arguments.json) as view:
        out = decode(view)
    if out.preset is not None:
        said = f"sampler: {out.preset} ({out.preset.source})"
        print(printable(said, sys.stderr), file=sys.stderr)
    name = str(out.preset or arguments.sampler)
    texts = out.texts or [""] * len(out.nfe)
    for i, (text, nfe, new_tokens) in enumerate(zip(texts, out.nfe, out.new_tokens, strict=True)):
        record: dict[str, Any] = {"text": text, "sampler": name, "options": options}
        record |= {"nfe": nfe, "new_tokens": new_tokens, "stats": out.stats}
        record |= {"gaps": out.gaps[i]} if out.gaps else {}
        print(json.dumps(record) if arguments.json else printable(text, sys.stdout))
    if view is not None:
        view.summary(out)
    return out


@contextmanager
def watching(model: Any, wanted: bool = True) -> Iterator[CanvasView | None]:
    """An `on_step` that shows the canvas, for as long as the block; None in a pipe."""
    live = wanted and terminal(sys.stdout).is_interactive
    view = CanvasView(model, sys.stdout) if live else None
    try:
        yield view
    finally:
        if view is not None:
            view.clear()


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
