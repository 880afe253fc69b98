"""Calls between the tests and the program, each in its own process: JSON lines over two pipes.

Both ends are a `Peer`. What a call does to its arguments is done to the caller's own objects;
functions and iterators of the other end are called from afar.

    ["call", number, [args, kwargs]]    to a function that the receiver holds
    ["next", number, [sent]]            to an iterator that the receiver holds
    ["returned" or "raised", value, changes of the arguments]
"""

import json

from dlmdecode.evals.sandbox_values import Shared, Values


class PipeError(BaseException):
    """The other end is gone or talks nonsense. No `Exception`: a test must not expect it."""


class Opaque:
    """Stands for an object of the other process; equal to itself only."""


class Peer(Values):
    """One end of the two pipes; a line longer than `largest` bytes is refused."""

    def __init__(self, reader, writer, largest, find):
        super().__init__(find)
        self.reader, self.writer, self.largest = reader, writer, largest
        self.broken = None

    # ---- calls ----

    def call(self, operation, number, *values):
        """Have the other end do it; its result, or its exception."""
        shared = Shared()
        self.send(json.dumps([operation, number, [self.encode(v, shared) for v in values]]))
        while True:
            kind, *data = self.receive()
            if kind in ("call", "next"):
                self.answer(kind, *data)
            elif kind in ("returned", "raised"):
                break
            else:
                self.fail(f"it answered {kind!r}")
        try:
            form, changes = data
            value = self.decode(form, shared)
            for place, content in changes:
                self.fill(shared.objects[place], content, shared)
            if kind == "raised" and not isinstance(value, BaseException):
                raise TypeError("no exception was raised")
        except Exception as error:
            self.fail(f"an answer that cannot be read ({type(error).__name__})")
        if kind == "raised":
            raise value
        return value

    def answer(self, operation, number, forms):
        """Do what the other end asks for, and tell the result."""
        shared, before = Shared(), []
        try:
            values = [self.decode(form, shared) for form in forms]
            before = self.contents(shared, len(shared.objects))
            value = self.perform(operation, self.held[number], *values)
            form = self.encode(value, shared)
            line = json.dumps(["returned", form, self.changes(before, shared)])
        except BaseException as error:
            if isinstance(error, PipeError):
                raise
            shared = Shared(shared.objects[: len(before)])
            form = self.encode(error, shared)
            line = json.dumps(["raised", form, self.changes(before, shared)])
        self.send(line)

    def perform(self, operation, target, *values):
        if operation == "call":
            args, kwargs = values
            return target(*args, **kwargs)
        return next(target) if values[0] is None else target.send(values[0])

    def contents(self, shared, count):
        return [self.content(value, shared) for value in shared.objects[:count]]

    def changes(self, before, shared):
        after = enumerate(self.contents(shared, len(before)))
        return [[place, content] for place, content in after if content != before[place]]

    def send(self, line):
        try:
            self.writer.write(line.encode() + b"\n")
            self.writer.flush()
        except BrokenPipeError:
            self.fail("the program ended before the call")

    def receive(self):
        line = self.reader.readline(self.largest + 1)
        if len(line) > self.largest:
            self.fail("the returned value is too large")
        if not line.endswith(b"\n"):
            self.fail("the program ended before it answered")
        try:
            kind, *data = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            self.fail("an answer that cannot be read")
        return kind, *data

    def fail(self, reason):
        """Whatever the tests make of it, this check has failed."""
        self.broken = self.broken or reason
        raise PipeError(reason)

    def stand_in(self, kind, number):
        if kind == "iterator":
            made = self.iterate(number)
        elif kind == "function":
            made = lambda *args, **kwargs: self.call("call", number, args, kwargs)  # noqa: E731
        else:
            made = Opaque()
        self.remote[id(made)] = made, number
        return made

    def iterate(self, number):
        sent = None
        while True:
            try:
                value = self.call("next", number, sent)
            except StopIteration as end:
                return end.value
            sent = yield value
