"""A prompt on its way through an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from torch import Tensor

from dlmdecode.decoding.trace import Step
from dlmdecode.result import Cost, Generation


class Request(Future[Generation]):
    """The future of a prompt's `Generation`: `result`, `add_done_callback`, `cancel` and the rest.

    `cancel` works until the text is finished, from any thread; the prompt's place is free at the
    next step. Callbacks run in the thread that steps, or that cancels.

    Attributes:
        index: which prompt of `Engine.run` it is, else how many were submitted before.
        prompt: (P,) int64 ids.
        length: positions of its text.
    """

    def __init__(
        self,
        index: int,
        prompt: Tensor,
        length: int,
        stream: Tensor,
        negative: Tensor | None = None,
        form: Tensor | None = None,
    ):
        super().__init__()
        self.index, self.prompt, self.length = index, prompt, length
        self.stream, self.negative = stream, negative  # the key of its noise; a negative prompt
        self.form = form  # (length,) int64, what is given behind the prompt, masks in the gaps
        self.on_step: Callable[[Step], None] | None = None
        self.steps, self.cost = 0, Cost()
        self.settling = threading.RLock()

    def cancel(self) -> bool:
        """Give the prompt up; False if its result or its error is there already."""
        with self.settling:
            if self.done():
                return self.cancelled()
            super().cancel()
            return not self.set_running_or_notify_cancel()  # wakes who waits for it

    def settle(self, outcome: Generation | BaseException) -> None:
        """Hand out the result or the error, unless it was cancelled."""
        with self.settling:
            if self.done():
                return
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)


def shortest_first(requests: Sequence[Request]) -> list[Request]:
    """By the lengths of their texts, so that those decoded together need little padding.

    A row that takes many steps is then padded itself; behind a longer one all the others were.
    """
    return sorted(requests, key=lambda request: len(request.prompt) + request.length)
