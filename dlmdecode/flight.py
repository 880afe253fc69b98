"""Requests in flight: one canvas whose rows leave when they are finished, and others take over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmdecode.call import Call
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Cost, Work
from dlmdecode.decoding.guidance import Guided
from dlmdecode.decoding.loop import BadLogits, denoise
from dlmdecode.request import Request
from dlmdecode.result import Generation

Watch: TypeAlias = Callable[[Canvas, Tensor, list[Request]], None]
"""Sees every step: the canvas after it, the tokens (B, L) before it, and whose the B rows are."""


@cache
def blank(device: torch.device) -> Canvas:
    """A canvas without rows."""
    nothing = torch.zeros(1, dtype=torch.int64, device=device)
    return Canvas.of([nothing], 1, 0, (0,)).take(nothing[:0])


class Flight:
    """Decodes the requests that `source(most)` gives, up to `num_places` at a time.

    Of a request that has ended nothing is kept: its place is free, and what a cache holds there is
    overwritten by the next one.
    """

    def __init__(
        self,
        call: Call,
        num_places: int,
        source: Callable[[int], Sequence[Request]],
        watch: Watch | None = None,
    ):
        self.call, self.num_places, self.source, self.watch = call, num_places, source, watch
        self.forward, self.cost = call.forward(num_places), Cost()
        self.rows: dict[int, Request] = {}  # by place, in the order of the canvas
        self.canvas = blank(call.model.device)  # as it was before the step
        self.begin()

    def begin(self) -> None:
        """Go on from the canvas; an error has ended the loop before."""
        dtype = self.call.settings.dtype
        self.steps = denoise(self.forward, self.canvas, self.call.sampler, dtype, self.admit)

    def admit(self, canvas: Canvas) -> Canvas:
        """The rows whose requests have not ended, and new ones in the places that are free."""
        stays = [not request.done() for request in self.rows.values()]
        self.rows = {p: r for (p, r), stay in zip(self.rows.items(), stays, strict=True) if stay}
        if not all(stays):
            canvas = canvas.take(torch.tensor(stays, device=canvas.row.device).nonzero()[:, 0])
        free = [place for place in range(self.num_places) if place not in self.rows]
        new = dict(zip(free, self.source(len(free)) if free else (), strict=False))
        self.rows = dict(sorted((self.rows | new).items()))
        if new:
            fresh = self.call.canvas(list(new.values()))
            fresh.row = torch.tensor(list(new), device=fresh.row.device)
            if isinstance(self.forward, Guided):
                self.forward.admit({place: r.negative for place, r in new.items()})
            canvas = Canvas.join([canvas, fresh]) if len(canvas) else fresh
        self.canvas = canvas  # a step works on a copy
        return canvas

    def advance(self) -> list[Request]:
        """Take one step; the requests that have a result or an error by it.

        `rows` is empty if there was no request. An error that is no single request's (memory ran
        out, say) is that of all in flight, and raised.
        """
        began, work = time.perf_counter(), replace(self.forward.work)
        try:
            canvas = next(self.steps, None)
        except BadLogits as error:
            self.begin()
            return self.fail(error)
        except Exception as error:
            self.begin()
            for request in self.rows.values():
                request.settle(error)
            raise
        if canvas is None:
            self.begin()
            return []
        done = [row.done for row in canvas.seen]
        self.count(work, time.perf_counter() - began)
        if self.watch is not None:
            self.watch(canvas, self.canvas.tokens, list(self.rows.values()))
        return self.finish(canvas, done)

    def count(self, work: Work, seconds: float) -> None:
        """Add what a step cost to the whole, and an even share to each request."""
        now, share = self.forward.work, 1 / len(self.rows)
        step = Cost(**{name: count - getattr(work, name) for name, count in vars(now).items()})
        step.seconds = seconds
        self.cost.add(step)
        for request in self.rows.values():
            request.steps += 1
            request.cost.add(step, share)

    def finish(self, canvas: Canvas, done: list[bool]) -> list[Request]:
        """Settle the requests whose rows are done, and let these go."""
        rows = list(self.rows.items())
        for index, (_, request) in enumerate(rows):
            if done[index]:
                request.settle(self.result(canvas, index, request))
        self.rows = {place: r for (place, r), ends in zip(rows, done, strict=True) if not ends}
        return [request for _, request in rows if request.done() and not request.cancelled()]

    def result(self, canvas: Canvas, index: int, request: Request) -> Generation:
        width = len(request.prompt) + request.length
        row = canvas.tokens[index, :width]
        row = F.pad(row, (0, width - len(row)), value=canvas.eos_ids[0])  # a copy in any case
        nfe = int(canvas.nfe[index])
        if canvas.gaps is not None:
            gaps, start = canvas.gaps[index, :width], len(request.prompt)
            return Generation.filled(self.call.model, row, start, gaps, nfe, request.cost)
        stops = self.call.settings.stop_strings or ()
        return Generation.of(self.call.model, row, len(request.prompt), nfe, request.cost, stops)

    def fail(self, error: BadLogits) -> list[Request]:
        """The error of a step is that of the requests with bad logits; the others take it again."""
        failed = [self.rows[place] for place in error.rows]
        for request in failed:
            own = BadLogits(request.steps + 1, [request.index])
            own.__cause__ = error
            request.settle(own)
        return [request for request in failed if not request.cancelled()]
