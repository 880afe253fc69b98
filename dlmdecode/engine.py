"""An engine decodes prompts that come and go: a place that is free is taken at the next step.

engine = dlmdecode.Engine("tiny", "threshold", batch_size=16)
for request in engine.run(prompts):               # as they finish
    print(request.index, request.result().texts[0])

threading.Thread(target=engine.serve).start()     # or one thread steps, and others submit
request = engine.submit(prompt, on_step=show)     # a concurrent.futures.Future
print(request.result(timeout=60).texts[0])        # asyncio.wrap_future(request) awaits it
engine.close()
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dlmdecode.call import Call
from dlmdecode.checks import conform, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.trace import Step
from dlmdecode.flight import Flight
from dlmdecode.request import Request, shortest_first
from dlmdecode.result import Cost
from dlmdecode.settings import DEFAULT_SAMPLER, Seed, takes_settings


class Engine:
    """Decode prompts in `batch_size` places; a text is what `generate` gives for its prompt alone.

    `submit`, `close` and `Request.cancel` may be called from any thread at any time. One thread
    steps, by `serve`, `run` or `step`.
    """

    @takes_settings
    def __init__(
        self,
        /,  # an option may have any name
        model: Any,
        sampler: Any = DEFAULT_SAMPLER,
        *,
        batch_size: int = 8,
        logits_processor: Any = None,
        **options: Any,
    ):
        """Everything is checked here, and nothing forwarded.

        Args:
            model, sampler: as for `generate`.
            batch_size: prompts in flight at a time.
            {settings}
            logits_processor: as for `generate`.
            **options: options of the sampler's components.

        Raises:
            ValueError, TypeError: as `generate`.
        """
        self.batch_size = whole("batch_size", batch_size)
        self.call = Call.of(model, sampler, options, logits_processor)
        self.flight = Flight(self.call, self.batch_size, self.next, self.show)
        self.changed = threading.Condition()  # guards the two below
        self.waiting: deque[Request] = deque()
        self.closed = False
        self.numbers = itertools.count()

    @property
    def cost(self) -> Cost:
        """Of all steps so far."""
        return self.flight.cost

    def submit(
        self,
        prompt: Any,
        *,
        seed: int | None = None,
        max_new_tokens: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Request:
        """Line a prompt up for the next free place.

        Args:
            prompt: a single one, in any form that `generate` takes.
            seed: of its noise; None is that of the engine.
            max_new_tokens: positions of its text; None are those of the engine.
            on_step: called with a `Step` of this prompt alone after every step, by the thread that
                steps. An error that it raises becomes the request's.

        Returns:
            The future of a `Generation` of one row. Logits that are NaN or infinite for this prompt
            make it raise `FloatingPointError`; the others go on.

        Raises:
            ValueError: bad argument, several prompts, a length that the sampler is not built for,
                or the engine is closed. Nothing else is affected.
        """
        usable = on_step is None or callable(on_step)
        require(usable, "on_step", on_step, "give a function, or None")
        several = self.call.settings.num_return_sequences
        require(several == 1, "num_return_sequences", several, "run gives several; submit, one")
        requests = self.prepare(prompt, seed=seed, max_new_tokens=max_new_tokens)
        require(len(requests) == 1, "prompt", prompt, "give a single one; run takes several")
        (request,) = requests
        request.index, request.on_step = next(self.numbers), on_step
        self.line_up([request])
        return request

    def prepare(
        self, prompt: Any, *, seed: int | None = None, max_new_tokens: int | None = None
    ) -> list[Request]:
        """The requests of a prompt or of several, checked as by `submit` and not yet lined up.

        `line_up` decodes them, after the caller has set their `on_step` and callbacks.
        """
        seed = conform("seed", seed, Seed | None)
        return self.call.requests(prompt, None, max_new_tokens, seed)

    def run(self, prompts: Any, attention_mask: Any = None) -> Iterator[Request]:
        """Decode several prompts, the shortest first; yields each request as soon as it has ended.

        `request.index` counts the prompts as they were given. `request.result()` is a `Generation`,
        or raises the error that this prompt ended with. Equal prompts have noise of their own, as
        in `generate`. What is left is cancelled when the iterator is closed.

        Raises:
            ValueError: bad prompts, named by their row, or the engine is closed.
        """
        return self.decode(self.call.requests(prompts, attention_mask))

    def decode(self, requests: Sequence[Request]) -> Iterator[Request]:
        """What `run` does, of requests that `prepare` gave: all of them, or those that are left."""
        self.line_up(shortest_first(requests))
        found = self.ended(requests)
        next(found)  # from here on its end cancels what is left
        return found

    def ended(self, requests: Sequence[Request]) -> Iterator[Any]:
        """Nothing at first; then step, and yield those of the requests that have ended."""
        left = dict.fromkeys(requests)
        try:
            yield None
            while left:
                done = [request for request in left if request.done()]
                for request in done:
                    del left[request]
                    if not request.cancelled():
                        yield request
                if not done:
                    self.step()
        finally:
            for request in requests:
                request.cancel()

    def line_up(self, requests: Sequence[Request]) -> None:
        """Let requests that `prepare` gave wait for places; `ValueError` once it is closed."""
        with self.changed:
            require(not self.closed, "prompt", "given", "the engine is closed: make another one")
            self.waiting.extend(requests)
            self.changed.notify_all()

    def num_waiting(self) -> int:
        """Requests that wait for a place."""
        with self.changed:
            return sum(not request.done() for request in self.waiting)

    def next(self, most: int) -> list[Request]:
        """Up to `most` of those waiting."""
        with self.changed:
            found: list[Request] = []
            while self.waiting and len(found) < most:
                request = self.waiting.popleft()
                found += [] if request.done() else [request]
            return found

    def step(self) -> list[Request]:
        """Take one step of all rows in flight; the requests that have a result or an error by it.

        An error that is no single request's (memory ran out, say) is that of all in flight, and
        raised; the engine goes on with those waiting.
        """
        return self.flight.advance()

    def serve(self) -> None:
        """Step whenever there is something to decode, until the engine is closed."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or self.waiting or self.flight.rows)
                if self.closed:
                    break
            with contextlib.suppress(Exception):  # it is that of the requests in flight
                self.step()
        for request in self.flight.rows.values():  # close may not have seen them yet
            request.cancel()

    def close(self) -> None:
        """Take no more prompts and cancel those that have not ended. `serve` returns."""
        with self.changed:
            self.closed = True
            left = [*self.waiting, *self.flight.rows.values()]
            self.waiting.clear()
            self.changed.notify_all()
        for request in left:
            request.cancel()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def show(self, canvas: Canvas, before: Tensor, requests: list[Request]) -> None:
        """Give a `Step` to those that want one."""
        for index, request in enumerate(requests):
            if request.on_step is not None:
                try:
                    request.on_step(own_step(canvas, before, index, request))
                except Exception as error:
                    request.settle(error)


def own_step(canvas: Canvas, before: Tensor, index: int, request: Request) -> Step:
    """The step of the row `index` as that of a batch of one."""
    width = len(request.prompt) + request.length
    own = canvas.take(torch.tensor([index], device=before.device)).resize(width)
    own.row = torch.zeros_like(own.row)
    own.trail = [(part, done[[index], :width]) for part, done in canvas.trail]
    return Step.of(request.steps, own, before[[index], :width], own.tokens, request.cost)
