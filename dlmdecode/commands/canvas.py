"""The canvas on a terminal, filling up: one picture after each step, in place of the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, groupby
from typing import Any, TextIO

import torch
from rich.cells import chop_cells
from rich.control import Control, ControlType
from rich.text import Text

from dlmdecode.console import terminal, without_controls
from dlmdecode.decoding.trace import Step
from dlmdecode.generation import Generation
from dlmdecode.trace.reasons import array, label, reason

MASK, EOS = "░", "·"
OPENS, CLOSES = "▐", "▌"  # around the open block
FRESH, DIM, PLAIN = "bold green", "dim", ""
DOUBTS = ((0.5, "red"), (0.9, "yellow"))  # written with less confidence than this
BELOW = 2  # lines of the screen that are not the canvas: the status, and the cursor's


class CanvasView:
    """An `on_step` of `generate` for a single text.

    Masks outside the open block are dim; what a step wrote is bold, what was written without much
    confidence yellow or red. `NO_COLOR` (no-color.org) leaves the colours out.
    """

    def __init__(self, model: Any, out: TextIO):
        self.model, self.console = model, terminal(out)
        self.shown: list[int] = []  # columns of each line that is on the screen
        self.sure: dict[int, float] = {}  # confidence of what was written, by position
        self.proposed: torch.Tensor | None = None  # what the masks of the last step were to be

    def __call__(self, step: Step) -> None:
        width, height = self.console.width - 1, max(self.console.height - BELOW, 1)
        canvas, block = self.canvas(step)
        lines = folded(canvas, width)
        ends = list(accumulate(len(line) + 1 for line in lines))
        at = next((i for i, end in enumerate(ends) if block < end), 0)
        top = max(min(at - height // 3, len(lines) - height), 0)  # the open block is in sight
        status = Text(self.status(step), DIM)
        status.truncate(width, overflow="ellipsis")
        with self.console:  # one write a picture, so that nothing flickers
            self.clear()
            self.console.show_cursor(False)
            for line in (*lines[top : top + height], status):
                self.shown.append(line.cell_len)
                self.console.print(line, no_wrap=True, crop=False)

    def clear(self) -> None:
        """Take the picture off the screen.

        A terminal that became narrower has broken its lines in two, so that it is higher now.
        """
        height = sum(max(-(-columns // self.console.width), 1) for columns in self.shown)
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * height
        self.shown.clear()
        if up:
            self.console.control(Control(ControlType.CARRIAGE_RETURN, *up))
            self.console.show_cursor(True)

    def canvas(self, step: Step) -> tuple[Text, int]:
        """The first row from its first changeable position on, and where its open block begins."""
        start, stop = int(step.start[0]), int(step.stop[0])
        lo, hi = int(step.lo[0]), min(int(step.hi[0]), stop)
        confidence, changed = step.confidence[0].tolist(), step.changed[0].tolist()
        self.sure |= {at: confidence[at] for at in range(start, stop) if changed[at]}
        part = lo < hi and (lo, hi) != (start, stop)
        text = Text()
        for begin, end in ((start, lo), (lo, hi), (hi, stop)):
            if begin == lo:
                block = len(text)
            if part and begin == lo < end:
                text.append(OPENS, DIM)
            for style, run in self.runs(step, begin, end):
                text.append(run, style)
            if part and end == hi > begin:
                text.append(CLOSES, DIM)
        return text, block

    def runs(self, step: Step, begin: int, end: int) -> Iterator[tuple[str, str]]:
        """(style, text) of neighbours of one kind."""
        tokens, changed = step.sequences[0].tolist(), step.changed[0].tolist()
        is_open = begin == int(step.lo[0])

        def kind(at: int) -> tuple[str, bool]:
            if tokens[at] == self.model.mask_id:
                return PLAIN if is_open else DIM, True
            return FRESH if changed[at] else doubt(self.sure.get(at, 1.0)), False

        for (style, masked), run in groupby(range(begin, end), kind):
            ids = [tokens[at] for at in run]
            yield style, MASK * len(ids) if masked else readable(self.model, ids)

    def status(self, step: Step) -> str:
        """Where the decoding is, and what the sampler's parts did in this step."""
        start, nfe = int(step.start[0]), int(step.nfe[0])
        written = int(step.length[0]) - int(step.masks_left[0])
        block = f"block {int(step.lo[0]) - start}–{int(step.hi[0]) - start - 1}"
        words = [block, f"NFE {nfe}", f"{written / nfe:.1f} tokens per forward"]
        settled = self.settled(step)
        words += [] if settled is None else [f"{settled:.0%} settled"]
        words += [f"{name} {count}" for name, count in changes_by_rule(step).most_common()]
        return " · ".join(words)

    def settled(self, step: Step) -> float | None:
        """Share of the masks for which the model proposes what it did a step ago."""
        open, token = step.masked[0], step.proposal.token[0]
        fresh = step.fresh.contains(torch.arange(len(token), device=token.device)[None])[0]
        now, before = token.where(open & fresh, torch.tensor(-1)), self.proposed
        self.proposed = now
        if before is None or len(before) != len(now):
            return None
        both = (now >= 0) & (before >= 0)
        return float((now == before)[both].double().mean()) if bool(both.any()) else None

    def summary(self, out: Generation) -> None:
        """Print the line under a finished text."""
        words = [f"{out.new_tokens[0]} tokens", f"NFE {out.nfe[0]}"]
        words += [f"{out.stats['tokens_per_forward']:.1f} tokens per forward"]
        words += [f"{out.stats['seconds']:.2f} s"]
        self.console.print(Text(" · ".join(words), DIM))


def changes_by_rule(step: Step) -> Counter[str]:
    """How many positions of the first row each part of the sampler changed."""
    at = array(step.changed[0]).nonzero()[0]
    done = [array(done)[0][at] for _, done in step.trail]
    numbers = reason(array(step.before)[int(step.rows[0])][at], done)
    found: Counter[str] = Counter()
    for number, sure in zip(numbers, array(step.confidence)[0][at].tolist(), strict=True):
        found[label(step.trail[number][0], sure)] += 1
    return found


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
    """Text without what terminals disagree about: tabs, and emoji that are joined into one."""
    if model.tokenizer is None:
        return " ".join(map(str, ids)) + " "
    text = without_controls(model.tokenizer.decode(ids, skip_special_tokens=True))
    return text.replace("\t", " ").replace("\u200d", "").replace("\ufe0f", "")


def folded(text: Text, width: int) -> list[Text]:
    """Lines of at most `width` columns, broken anywhere: what is written moves no word."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        ends = accumulate(map(len, chop_cells(line.plain, width)))
        lines += line.divide([end for end in ends if end < len(line)]) if line else [line]
    return lines
