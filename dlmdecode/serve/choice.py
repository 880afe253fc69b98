"""One text on its way to a client: what is final, where it stops, and why."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from dlmdecode.call import Call
from dlmdecode.decoding.trace import Step
from dlmdecode.parts.remasking import before_match, first_match
from dlmdecode.request import Request
from dlmdecode.streaming import Streaming
from dlmdecode.trace.steps import Recorder


@dataclass(frozen=True)
class Piece:
    """Text that became final."""

    text: str


@dataclass(frozen=True)
class View:
    """The canvas after a step: `tokens` has the text of each position, None for a mask."""

    step: int
    nfe: int
    block: tuple[int, int]  # the open one is [lo, hi) of the tokens
    tokens: list[str | None]


@dataclass(frozen=True)
class Line:
    """A line of the text's trace."""

    type: str  # "run" or "step"
    fields: dict[str, Any]


@dataclass(frozen=True)
class End:
    """The whole text, or the error that it ended with."""

    text: str = ""
    reason: str = "stop"  # or "length"
    new_tokens: int = 0
    nfe: int = 0
    error: BaseException | None = None


Told: TypeAlias = Piece | View | Line | End
Tell: TypeAlias = Callable[[int, Told], None]


class Choice:
    """Tells of a request what a client is to know, in the thread that steps.

    A text ends before the first of `stops`; its request is then cancelled, so that its place is
    free. It is the text of a run without them, cut there. As a streamer it is fed by `Streaming`.
    """

    def __init__(self, index: int, request: Request, call: Call, stops: Sequence[str], tell: Tell):
        self.index, self.request, self.stops = index, request, tuple(stops)
        self.call, model = call, call.model
        self.tokenizer, self.mask_id, self.eos_ids = model.tokenizer, model.mask_id, model.eos_ids
        self.tell = tell
        self.ids: list[int] = []
        self.sent, self.nfe = "", 0
        self.cut: End | None = None
        self.pieces: dict[int, str] = {}
        self.feed = Streaming(self)
        self.feed.begin(call, [request])
        request.add_done_callback(self.done)

    def watch(self, canvas: bool = False, trace: bool = False) -> None:
        """Look at every step of the request: for pieces and stops, the canvas, and the trace."""
        recorder = Recorder(self.call) if trace else None
        if recorder is not None:
            self.tell(self.index, Line("run", recorder.header([self.request])))

        def look(step: Step) -> None:
            self.nfe = int(step.nfe[0])
            self.feed.show(step)
            if canvas and self.cut is None:
                self.tell(self.index, self.view(step))
            if recorder is not None:
                self.tell(self.index, Line("step", *recorder.lines([step])))

        self.request.on_step = look

    def put(self, value: Tensor) -> None:
        """Take more final ids (n,); the prompt (1, P) is none of them."""
        if value.dim() > 1:
            return
        self.ids += (id for id in value.tolist() if id not in self.eos_ids)
        text = self.text(self.ids)
        if first_match(text, self.stops) is not None:
            self.cut = self.cut_at(self.ids, text, self.nfe)
            self.request.cancel()
            return
        held = max(map(len, self.stops), default=1) - 1  # it may begin a stop string
        ready = text[: max(len(text) - held, 0)].rstrip("\ufffd")  # a character's first half
        if len(ready) > len(self.sent) and ready.startswith(self.sent):
            self.tell(self.index, Piece(ready[len(self.sent) :]))
            self.sent = ready

    def end(self) -> None:
        """The end of a streamer; `done` is that of a choice."""

    def view(self, step: Step) -> View:
        start, stop = int(step.start[0]), int(step.stop[0])
        ids = step.sequences[0, start:stop].tolist()
        block = (int(step.lo[0]) - start, int(step.hi[0]) - start)
        tokens = [None if id == self.mask_id else self.piece(id) for id in ids]
        return View(step.number, int(step.nfe[0]), block, tokens)

    def piece(self, id: int) -> str:
        if id not in self.pieces:
            self.pieces[id] = self.tokenizer.decode([id])
        return self.pieces[id]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def cut_at(self, ids: list[int], text: str, nfe: int) -> End:
        """The end at the first stop string of a text; its tokens are those up to the match."""

        def matches(count: int) -> bool:
            return first_match(self.text(ids[:count]), self.stops) is not None

        count = bisect_left(range(len(ids)), True, key=matches)
        return End(before_match(text, self.stops), "stop", count, nfe)

    def done(self, request: Any) -> None:
        """Tell the rest of the text and the end."""
        end = self.cut or self.outcome()
        if end.error is None and len(end.text) > len(self.sent):
            self.tell(self.index, Piece(end.text[len(self.sent) :]))
        self.tell(self.index, end)

    def outcome(self) -> End:
        request = self.request
        if request.cancelled():
            return End(error=RuntimeError("the server is shutting down"))
        error = request.exception()
        if error is not None:
            return End(error=error)
        out = request.result()
        text, count, nfe = (out.texts or [""])[0], out.new_tokens[0], out.nfe[0]
        if first_match(text, self.stops) is not None:
            start = len(request.prompt)
            return self.cut_at(out.sequences[0, start : start + count].tolist(), text, nfe)
        return End(text, "length" if count == request.length else "stop", count, nfe)
