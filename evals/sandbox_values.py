"""Values as JSON: what the tests and the program send each other (`sandbox_pipe`).

No pickle: a value can do nothing to who reads it. Builtin data and common types of the standard
library arrive as themselves, with their identities within one call; exceptions as the nearest class
that the receiver has; functions, iterators and instances of other classes stay where they are, and
the other end has a stand-in. Standard library only, and light: it is part of a program's start.
"""

import builtins
import collections
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
TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
STANDARD = {  # immutable types that say themselves how they are made: (type, arguments)
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "datetime": ("date", "time", "datetime", "timedelta", "timezone"),
    "builtins": ("slice",),
}


class Shared:
    """The mutable objects of one call, numbered as they appear; both ends number alike."""

    def __init__(self, objects=()):
        self.objects, self.numbers = [], {}
        for value in objects:
            self.add(value)

    def add(self, value):
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)


class Values:
    """Encodes and decodes for one end. `find(module, name)`: its class of that name, or None."""

    def __init__(self, find):
        self.find = find
        self.held, self.numbers = [], {}  # objects of this process that the other one may use
        self.remote = {}  # id of a stand-in: the stand-in, and the number it has over there

    def hold(self, value):
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.held)
            self.held.append(value)
        return self.numbers[id(value)]

    def stand_in(self, kind, number):
        """What stands for an object that the other end holds."""
        raise NotImplementedError

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
            forms = self.each(value.__reduce__()[1], shared)
            return ["standard", [exact.__module__, exact.__name__, forms]]
        if exact is type and value in TYPES.values():
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
        return TYPES[name]

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
