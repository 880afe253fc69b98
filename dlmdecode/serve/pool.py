"""The engines of a server: one for each sampler with its settings, all stepped by one thread."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from dlmdecode.engine import Engine
from dlmdecode.request import Request
from dlmdecode.serve.errors import overloaded
from dlmdecode.serve.limits import Limits


class Pool:
    """Engines over one model. Requests with the same sampler and settings share a batch.

    `start` begins to step, in turn, the engines that have something to decode. All methods may be
    called from any thread.
    """

    def __init__(self, model: Any, batch_size: int, limits: Limits):
        self.model, self.batch_size, self.limits = model, batch_size, limits
        self.changed = threading.Condition()  # guards the two below
        self.engines: OrderedDict[str, Engine] = OrderedDict()  # the last used ones last
        self.closed = False
        self.thread = threading.Thread(target=self.serve, name="dlmdecode-steps", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def engine(self, sampler: str, options: Mapping[str, Any], length: int) -> Engine:
        """The engine of these settings for texts of `length` positions.

        It is shared by all lengths, where sampler and settings do not depend on them.

        Raises:
            ValueError, TypeError: as `generate` for these arguments.
            Refused: all engines are busy.
        """
        try:
            engine = self.find(sampler, {**options, "max_new_tokens": self.limits.tokens})
            engine.call.length(length)
            return engine
        except ValueError:
            return self.find(sampler, {**options, "max_new_tokens": length})

    def find(self, sampler: str, options: dict[str, Any]) -> Engine:
        key = json.dumps([sampler, options], sort_keys=True)
        with self.changed:
            if key in self.engines:
                self.engines.move_to_end(key)
                return self.engines[key]
        made = Engine(self.model, sampler, batch_size=self.batch_size, **options)
        with self.changed:
            self.make_room()
            return self.engines.setdefault(key, made)

    def make_room(self) -> None:
        """Forget the engine that was not used for longest, if there are too many."""
        if len(self.engines) < self.limits.engines:
            return
        idle = next((key for key, engine in self.engines.items() if not busy(engine)), None)
        if idle is None:
            raise overloaded("too many different settings are being decoded: try again later")
        del self.engines[idle]

    def line_up(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Decode the requests, which `engine` has prepared; `Refused` where too many wait."""
        with self.changed:
            if self.closed:
                raise overloaded("the server is shutting down")
            if self.num_waiting() + len(requests) > self.limits.queue:
                raise overloaded(f"{self.num_waiting()} texts wait already: try again later")
            if engine not in self.engines.values():
                raise overloaded("too many different settings: try again later")  # it made room
            engine.line_up(requests)
            self.changed.notify_all()

    def num_waiting(self) -> int:
        """Texts that wait for a place."""
        with self.changed:
            return sum(engine.num_waiting() for engine in self.engines.values())

    def num_in_flight(self) -> int:
        with self.changed:
            return sum(len(engine.flight.rows) for engine in self.engines.values())

    def serve(self) -> None:
        """Step whatever has something to decode, until the pool is closed."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or any(map(busy, self.engines.values())))
                if self.closed:
                    return
                engines = [engine for engine in self.engines.values() if busy(engine)]
            for engine in engines:
                with contextlib.suppress(Exception):  # it is that of the requests in flight
                    engine.step()

    def close(self) -> None:
        """Take no more requests and cancel those that have not ended; returns when all is still."""
        with self.changed:
            self.closed = True
            engines = list(self.engines.values())
            self.changed.notify_all()
        for engine in engines:
            engine.close()
        if self.thread.is_alive():
            self.thread.join()


def busy(engine: Engine) -> bool:
    return bool(engine.waiting or engine.flight.rows)
