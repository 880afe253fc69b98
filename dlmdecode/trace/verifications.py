"""A step of speculation as a line: what was drafted, and what of it stands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dlmdecode.trace.file import VERSION, TraceFile
from dlmdecode.trace.names import Names


class SpeculationFile(TraceFile):
    """The file that `speculate(…, trace=PATH)` appends its run to; calls `on_step`, too.

    `named` are the fields of the header that say who drafts and who verifies.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        tokenizer: Any,
        prompts: Sequence[Tensor],
        named: dict[str, Any],
        on_step: Callable[[Any], None] | None = None,
    ):
        super().__init__(path)
        self.on_step, self.names = on_step, Names(tokenizer)
        self.began = time.perf_counter()
        if self.file is not None:
            rows = [{"prompt": self.names.decode(ids.tolist())} for ids in prompts]
            self.write("run", {"version": VERSION, "kind": "speculate"} | named | {"rows": rows})

    def step(self, step: Any) -> None:
        """Append a `Step` of `speculate`, each of whose fields is one of the line."""
        if self.on_step is not None:
            self.on_step(step)
        if self.file is None:
            return
        seconds = round(time.perf_counter() - self.began, 6)
        fields = {"step" if name == "number" else name: value for name, value in vars(step).items()}
        names = self.names.new({*step.draft, *step.written})
        self.write("step", fields | {"seconds": seconds, "vocabulary": names})

    def end(self, out: Any) -> None:
        """Append what a `Speculation` says."""
        if self.file is not None:
            texts = {} if out.texts is None else {"texts": out.texts}
            self.write("end", texts | {"new_tokens": out.new_tokens, "stats": out.stats})
