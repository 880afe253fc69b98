"""Feeding a streamer of transformers with the verifier's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.speculation.result import Step
from dlmdecode.streaming import check_streamer


class Streaming:
    """Puts the prompt, then what each verification wrote; as a context it ends the streamer, come
    what may.

    Args:
        streamer: an object with `put(ids)` and `end()`, or None for nobody.
        on_step: called with every `Step` after its text was put; or None.

    Raises:
        ValueError: something else.
    """

    def __init__(self, streamer: Any, on_step: Callable[[Step], None] | None):
        check_streamer(streamer)
        self.streamer, self.on_step = streamer, on_step

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *error: object) -> None:
        if self.streamer is not None:
            self.streamer.end()

    def check(self, prompts: Sequence[Tensor]) -> None:
        """Raise `ValueError` for an `on_step` that is none, and for several prompts."""
        fits, fix = self.on_step is None or callable(self.on_step), "give a function of a Step"
        require(fits, "on_step", self.on_step, fix)
        alone = self.streamer is None or len(prompts) == 1
        require(alone, "streamer", self.streamer, "a streamer takes a single prompt")

    def begin(self, prompts: Sequence[Tensor]) -> None:
        """Put the prompt (P,)."""
        if self.streamer is not None:
            self.streamer.put(prompts[0][None].cpu())

    def step(self, step: Step) -> None:
        if self.streamer is not None:
            self.streamer.put(torch.tensor(step.written, device="cpu"))
        if self.on_step is not None:
            self.on_step(step)
