"""Feeding a streamer of transformers: text as it becomes final, drafts, and the end in any case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from dlmdecode.call import Call
from dlmdecode.checks import require
from dlmdecode.decoding.trace import Step
from dlmdecode.request import Request


@runtime_checkable
class Streamer(Protocol):
    """transformers' protocol. One that has `put_draft(value=ids)` as well sees every canvas."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


def check_streamer(streamer: Any) -> None:
    """Raise `ValueError` for what is neither a streamer nor None, a streamer's class say."""
    known = isinstance(streamer, Streamer) and not isinstance(streamer, type)
    fix = "give an object with put(ids) and end(), or None"
    require(streamer is None or known, "streamer", streamer, fix)


class Streaming:
    """Feeds a streamer, or nobody if it is None. As a context it ends the streamer, come what may.

    Text is put up to and with its first EOS: what fills the canvas behind it is no text.
    """

    def __init__(self, streamer: Any):
        check_streamer(streamer)
        self.streamer = streamer

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *error: object) -> None:
        if self.streamer is not None:
            self.streamer.end()

    def begin(self, call: Call, requests: Sequence[Request]) -> None:
        """Put the prompt."""
        if self.streamer is None:
            return
        require(len(requests) == 1, "streamer", self.streamer, "a streamer takes a single prompt")
        self.mask_id, self.eos_ids = call.model.mask_id, call.model.eos_ids
        prompt = requests[0].prompt
        self.start, self.stop = len(prompt), len(prompt) + requests[0].length
        self.takes_back, self.shown = call.sampler.takes_back, 0
        self.streamer.put(prompt[None].cpu())

    def show(self, step: Step) -> None:
        """Put what has become final, and the draft."""
        if self.streamer is None:
            return
        self.stop = max(self.stop, int(step.stop[0]))  # where a text finds its length, it grows
        row = step.sequences[0, self.start : self.stop].cpu()
        if hasattr(self.streamer, "put_draft"):  # optional in the protocol
            self.streamer.put_draft(value=row[None])
        final = self.final(row.tolist(), step)
        if final > self.shown:
            self.streamer.put(row[self.shown : final])
            self.shown = final

    def final(self, ids: list[int], step: Step) -> int:
        """Tokens of the text that are written for good."""
        masks = (i for i, token in enumerate(ids) if token == self.mask_id)
        final = next(masks, len(ids))
        if self.takes_back and (int(step.masks_left[0]) or bool(step.held[0])):
            final = min(final, int(step.lo[0]) - self.start)
        ends = (i + 1 for i, token in enumerate(ids[:final]) if token in self.eos_ids)
        return next(ends, final)
