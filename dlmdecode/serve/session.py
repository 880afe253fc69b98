"""One request from its body to its last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from dlmdecode.checks import require
from dlmdecode.serve.answers import Answers, event
from dlmdecode.serve.choice import Choice, End, Line, Piece, Told, View
from dlmdecode.serve.errors import Refused, failed
from dlmdecode.serve.metrics import Metrics
from dlmdecode.serve.pool import Pool
from dlmdecode.serve.reading import Wanted, refused


class Left(Exception):
    """The client has gone."""


class Session:
    """The choices of a request, and what the thread that steps has told of them."""

    def __init__(self, wanted: Wanted, pool: Pool, metrics: Metrics, name: str, chat: bool):
        self.wanted, self.pool, self.metrics = wanted, pool, metrics
        self.name, self.chat = name, chat
        self.loop, self.began = asyncio.get_running_loop(), time.perf_counter()
        self.events: asyncio.Queue[tuple[int, Told] | None] = asyncio.Queue()
        self.choices: list[Choice] = []
        self.ends: dict[int, End] = {}

    def tell(self, index: int, what: Told) -> None:
        """Called by the thread that steps."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.events.put_nowait, (index, what))

    def begin(self) -> None:
        """Check the rest and line up; it tokenizes, so not for the thread of the event loop."""
        wanted = self.wanted
        try:
            engine = self.pool.engine(wanted.sampler, wanted.options, wanted.length)
            fix = "without a temperature all of them are the same text: give temperature too"
            usable = wanted.num_texts == 1 or engine.call.sampler.draws
            require(usable, "n", wanted.num_texts, fix)
            prompts = [prompt for prompt in wanted.prompts for _ in range(wanted.num_texts)]
            requests = engine.prepare(prompts, seed=wanted.seed, max_new_tokens=wanted.length)
        except (ValueError, TypeError, OverflowError) as error:
            raise refused(error, wanted.names) from None
        for index, request in enumerate(requests):
            choice = Choice(index, request, engine.call, wanted.stops, self.tell)
            if wanted.stream or wanted.stops:
                choice.watch(wanted.canvas, wanted.trace)
            self.choices.append(choice)
        own = requests[:: wanted.num_texts]
        self.answers = Answers(self.name, self.chat, sum(len(request.prompt) for request in own))
        self.pool.line_up(engine, requests)

    async def told(self) -> AsyncIterator[tuple[int, Told]]:
        """Everything that is told, until all choices have ended.

        Raises:
            Left: the client has gone.
            Refused: the error that a choice ended with.
        """
        while len(self.ends) < len(self.choices):
            found = await self.events.get()
            if found is None:
                raise Left
            index, what = found
            if isinstance(what, End):
                if what.error is not None:
                    raise failed(what.error)
                self.ends[index] = what
            yield index, what

    async def whole(self, receive: Any) -> dict[str, Any]:
        """The answer without a stream. Raises `Left` and `Refused`."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.events.put_nowait(None)

        watch = asyncio.ensure_future(gone())
        try:
            async for _ in self.told():
                pass
            return self.answers.whole([self.ends[i] for i in range(len(self.choices))])
        finally:
            watch.cancel()
            self.finish()

    async def stream(self) -> AsyncIterator[bytes]:
        """The server-sent events; an error is the last one."""
        answers = self.answers
        try:
            for choice in self.choices if self.chat else ():
                yield event(answers.opening(choice.index))
            async for index, what in self.told():
                if isinstance(what, Piece):
                    yield event(answers.chunk(index, what.text))
                elif isinstance(what, View):
                    yield event(answers.canvas(index, what))
                elif isinstance(what, Line):
                    yield event(answers.traced(index, what))
                else:
                    if self.wanted.trace:
                        yield event(answers.traced(index, what))
                    yield event(answers.chunk(index, reason=what.reason))
            if self.wanted.with_usage:
                usage = answers.usage(list(self.ends.values()))
                yield event(answers.part([]) | {"usage": usage})
            yield b"data: [DONE]\n\n"
        except Refused as error:
            yield event(error.body())

    def finish(self) -> None:
        """Free the places of what has not ended, and count what has."""
        unfinished = [choice.request.cancel() for choice in self.choices]
        if len(self.ends) < len(self.choices) and any(unfinished):
            self.metrics.left.inc()
        ends = self.ends.values()
        self.metrics.tokens.labels("prompt").inc(self.answers.prompt_tokens)
        self.metrics.tokens.labels("text").inc(sum(end.new_tokens for end in ends))
        self.metrics.forwards.inc(sum(end.nfe for end in ends))
        self.metrics.seconds.observe(time.perf_counter() - self.began)
