"""The trace of a call of `generate`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dlmdecode.call import Call
from dlmdecode.decoding.trace import Step
from dlmdecode.request import Request
from dlmdecode.result import Generation
from dlmdecode.trace.file import TraceFile
from dlmdecode.trace.steps import Recorder

TOGETHER = 32  # steps are written together: one by one, each would find the caches cold


class GenerationFile(TraceFile):
    """The file that `generate(…, trace=PATH)` appends its run to."""

    def __init__(
        self, path: str | os.PathLike[str] | None, call: Call, requests: Sequence[Request]
    ):
        super().__init__(path)
        self.waiting: list[Step] = []
        if self.file is not None:
            self.recorder = Recorder(call)
            self.write("run", self.recorder.header(requests))

    def step(self, step: Step) -> None:
        """Append a step, with those since the last time once they are so many, or the run ends."""
        if self.file is None:
            return
        self.waiting.append(step)
        if len(self.waiting) == TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Append the steps that wait."""
        steps, self.waiting = self.waiting, []
        if steps:
            self.write("step", *self.recorder.lines(steps))

    def __exit__(self, *error: object) -> None:
        try:
            self.flush()
        finally:
            super().__exit__(*error)

    def end(self, out: Generation) -> None:
        """Append what the run gave."""
        if self.file is None:
            return
        self.flush()
        texts = {} if out.texts is None else {"texts": out.texts}
        costs = {"nfe": out.nfe, "new_tokens": out.new_tokens, "stats": out.stats}
        self.write("end", texts | costs)
