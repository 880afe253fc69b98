"""Calls between the tests and the program, each in its own process: JSON lines over two pipes.

Both ends are a `Peer`. No pickle: a value can do nothing to who reads it. Builtin data and common
types of the standard library arrive as themselves; what a call does to its arguments is done to
the caller's own objects; functions and iterators stay where they are and are called from afar;
exceptions arrive as the nearest class that the receiver has. Instances of other classes are
`Opaque`: equal to themselves only.

    ["call", number, [args, kwargs]]    to a function that the receiver holds
    ["next", number, [sent]]            to an iterator that the receiver holds
    ["returned" or "raised", value, changes of the arguments]

Standard library only, and light: it is part of the program's start.
"""

import builtins
import collections
import json
import sys

NEW = {  # mutable containers, made empty and then filled, so that they may hold each other
    "list": lambda _: [],
    "dict": lambda _: {},
    "set": lambda _: set(),
    "bytearray": lambda _: bytearray(),
    "deque": lambda maxlen: collections.deque(maxlen=maxlen),
    "OrderedDict": lambda _: collections.OrderedDict(),
    "Counter": lambda _: collections.Counter(),
    "defaultdict": collections.defaultdict,
}
EXTRA = {"deque": "maxlen", "defaultdict": "default_factory"}  # what some are made with
KINDS = [getattr(collections, name, None) or vars(builtins)[name] for name in reversed(NEW)]
NUMBERS_AND_TEXT = (str, int, float, complex, bytes, range, tuple, frozenset)
VIEWS = {type(getattr(kind(), name)()): name for kind in (dict, collections.OrderedDict)
         for name in ("keys", "values", "items")}  # fmt: skip
STANDARD = {  # immutable types that say themselves how they are made: (type, arguments)
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "datetime": ("date", "time", "datetime", "timedelta", "timezone"),
    "builtins": ("slice",),
}


class PipeError(BaseException):
    """The other end is gone or talks nonsense. No `Exception`: a test must not expect it."""


class Opaque:
    """Stands for an object of the other process; equal to itself only."""


class Shared:
    """The mutable objects of one call, numbered as they appear; both ends number alike."""

    def __init__(self, objects=()):
        self.objects, self.numbers = [], {}
        for value in objects:
            self.add(value)

    def add(self, value):
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)


class Peer:
    """One end. `find(module, name)` gives the class of that name that this end has, or None."""

    def __init__(self, reader, writer, largest, find):
        self.reader, self.writer, self.largest, self.find = reader, writer, largest, find
        self.held, self.numbers = [], {}  # objects of this process that the other one may use
        self.remote = {}  # id of a stand-in: the stand-in, and the number it has over there
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

    # ---- objects that stay where they are ----

    def hold(self, value):
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.held)
            self.held.append(value)
        return self.numbers[id(value)]

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

    # ---- values ----

    def encode(self, value, shared):
        """JSON-able form: None, a truth value, or [kind, data], containers with what makes them."""
        if value is None or isinstance(value, bool):
            return value
        if id(value) in shared.numbers:
            return ["same", shared.numbers[id(value)]]
        if id(value) in self.remote:
            return ["yours", self.remote[id(value)][1]]
        exact = type(value)
        kind = exact if exact in KINDS else next((k for k in KINDS if isinstance(value, k)), None)
        if kind is not None:
            shared.add(value)
            name = kind.__name__
            extra = getattr(value, EXTRA[name]) if name in EXTRA else None
            return [name, self.content(value, shared), self.encode(extra, shared)]
        if isinstance(value, tuple) and hasattr(exact, "_fields"):
            return ["namedtuple", [exact.__name__, list(exact._fields), self.each(value, shared)]]
        for plain in NUMBERS_AND_TEXT:
            if isinstance(value, plain):
                return [plain.__name__, self.plain(plain, value, shared)]
        if exact in VIEWS:
            return [VIEWS[exact], self.content(dict(enumerate(value)), shared)]
        if isinstance(value, BaseException):
            return ["exception", self.exception(value, shared)]
        if exact.__name__ in STANDARD.get(exact.__module__, ()):
            made, arguments = value.__reduce__()[:2]
            return ["standard", [exact.__module__, made.__name__, self.each(arguments, shared)]]
        if exact is type and vars(builtins).get(value.__name__) is value:
            return ["type", value.__name__]
        if hasattr(value, "__next__"):
            return ["iterator", self.hold(value)]
        return ["function" if callable(value) else "opaque", self.hold(value)]

    def each(self, values, shared):
        return [self.encode(value, shared) for value in values]

    def content(self, value, shared):
        """What a mutable container holds."""
        if isinstance(value, dict):
            return [self.each(pair, shared) for pair in value.items()]
        return bytes(value).hex() if isinstance(value, bytearray) else self.each(value, shared)

    def plain(self, kind, value, shared):
        if kind is str:
            return str.__str__(value)
        if kind is int:
            return hex(value)
        if kind is float:
            return float.hex(value)
        if kind is complex:
            return [value.real.hex(), value.imag.hex()]
        if kind is bytes:
            return bytes.hex(value)
        if kind is range:
            return [*map(hex, (value.start, value.stop, value.step))]
        return self.each(value, shared)

    def exception(self, error, shared):
        """Its classes, what made it, its attributes, its text and its cause."""
        classes = [(kind.__module__, kind.__qualname__) for kind in type(error).__mro__]
        builtin = type(error).__module__ == "builtins"
        arguments = error.__reduce__()[1] if builtin else error.args
        try:
            text = str(error)
        except Exception as second:
            text = f"<{type(second).__name__} in __str__>"
        parts = (arguments, vars(error), text, error.__cause__)
        return [classes, *(self.encode(part, shared) for part in parts)]

    def decode(self, form, shared):
        """Inverse of `encode`."""
        if form is None or isinstance(form, bool):
            return form
        kind, data, *extra = form
        if kind in NEW:
            value = NEW[kind](self.decode(extra[0], shared))
            shared.add(value)
            self.fill(value, data, shared)
            return value
        if kind in ("function", "iterator", "opaque"):
            return self.stand_in(kind, data)
        return getattr(self, f"read_{kind}", self.read_plain)(data, shared, kind)

    def fill(self, value, content, shared):
        """Make `content` what a container holds."""
        if isinstance(value, bytearray):
            value[:] = bytes.fromhex(content)
        elif isinstance(value, dict):
            pairs = [[self.decode(part, shared) for part in pair] for pair in content]
            value.clear()
            value.update({key: item for key, item in pairs})
        else:
            items = self.items(content, shared)
            value.clear()
            value.update(items) if isinstance(value, set) else value.extend(items)

    def items(self, forms, shared):
        return [self.decode(form, shared) for form in forms]

    def read_same(self, number, shared, kind):
        return shared.objects[number]

    def read_yours(self, number, shared, kind):
        return self.held[number]

    def read_type(self, name, shared, kind):
        kind = getattr(builtins, name)
        if not isinstance(kind, type):  # eval is no type
            raise TypeError(name)
        return kind

    def read_plain(self, data, shared, kind):
        if kind == "str":
            return str(data)
        if kind == "int":
            return int(data, 16)
        if kind == "float":
            return float.fromhex(data)
        if kind == "complex":
            return complex(*map(float.fromhex, data))
        if kind == "bytes":
            return bytes.fromhex(data)
        if kind == "range":
            return range(*(int(end, 16) for end in data))
        return {"tuple": tuple, "frozenset": frozenset}[kind](self.items(data, shared))

    def read_namedtuple(self, data, shared, kind):
        name, fields, items = data
        return collections.namedtuple(name, fields)(*self.items(items, shared))

    def read_standard(self, data, shared, kind):
        module, name, arguments = data
        if name not in STANDARD[module]:
            raise ValueError(name)
        return getattr(__import__(module), name)(*self.items(arguments, shared))

    def view(self, pairs, shared):
        return [self.decode(item, shared) for _, item in pairs]

    def read_keys(self, pairs, shared, kind):
        return dict.fromkeys(self.view(pairs, shared)).keys()

    def read_values(self, pairs, shared, kind):
        return dict(enumerate(self.view(pairs, shared))).values()

    def read_items(self, pairs, shared, kind):
        return dict(self.view(pairs, shared)).items()

    def read_exception(self, data, shared, kind):
        classes, *forms = data
        arguments, attributes, text, cause = self.items(forms, shared)
        known = [self.find(*each) for each in classes]
        made = known[0] or self.derived(classes[0][1], known, text)
        try:
            error = made(*arguments)
        except Exception:  # its own __init__ wants something else
            error = made.__new__(made)
            error.args = tuple(arguments)
        vars(error).update(attributes)
        error.__cause__ = cause
        return error

    def derived(self, name, known, text):
        """A class between the one that only the other end has and those that this end has too."""
        known = [kind for kind in known if kind]
        bases = [k for k in known if not any(issubclass(o, k) for o in known if o is not k)]
        if not bases:
            raise ValueError(f"{name} is no exception")
        return type(name.rpartition(".")[2], tuple(bases), {"__str__": lambda self: text})


def exception_class(space, module, name):
    """The exception class of that name: of the program text, or of a module that is loaded."""
    found = getattr(sys.modules.get(module), name, None) if module != "program" else space.get(name)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None
