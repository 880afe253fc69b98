"""The process of a program under test: reads calls as plain data, sends values back as plain data.

The judge starts it with `python -I -S -c`, because nothing of this package is
visible inside the jail; it also takes `encode` and `decode` from here. Standard library only.
"""

import builtins
import json
import os
import signal
import sys
from collections.abc import Callable

REQUEST, REPLY = 3, 4  # the two pipes


# ---- plain data over a pipe: no pickle, so a value cannot do anything to who reads it ----


def encode(value):
    """JSON-able form of builtin data. Anything else becomes its type's name."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else ["str", str(value)]
    if isinstance(value, int):
        return ["int", hex(value)]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", [value.real.hex(), value.imag.hex()]]
    if isinstance(value, (bytes, bytearray)):
        return [type(value).__name__, bytes(value).hex()]
    if isinstance(value, range):
        return ["range", [value.start, value.stop, value.step]]
    if isinstance(value, dict):
        return ["dict", [[encode(k), encode(v)] for k, v in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(item) for item in value]]
    if hasattr(value, "__next__"):
        return ["iterator", [encode(item) for item in value]]
    return ["opaque", type(value).__name__]


class Opaque:
    """Stands for an object that cannot be sent; equal to itself only."""


def decode(form):
    """Inverse of `encode`."""
    if not isinstance(form, list):
        return form
    kind, data = form
    if kind in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, kind)(decode(item) for item in data)
    readers: dict[str, Callable] = {
        "str": str,
        "int": lambda text: int(text, 16),
        "float": float.fromhex,
        "complex": lambda pair: complex(*map(float.fromhex, pair)),
        "bytes": bytes.fromhex,
        "bytearray": bytearray.fromhex,
        "range": lambda ends: range(*ends),
        "dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
        "iterator": lambda items: iter([decode(item) for item in items]),
        "opaque": lambda name: Opaque(),
    }
    return readers[kind](data)


# ---- the program's side ----


def serve(entry_point, guarded):
    """Define the program (the first line to come), then answer calls until the judge hangs up."""
    requests, replies = os.fdopen(REQUEST, "rb"), os.fdopen(REPLY, "wb")

    def reply(*message):
        replies.write(json.dumps(message).encode() + b"\n")
        replies.flush()

    reply("started")
    if guarded:
        refuse_everything_but_computing()
    try:
        space: dict = {"__name__": "program"}
        exec(compile(json.loads(requests.readline()), "program", "exec"), space)
        function = space[entry_point]
        reply("defined")
    except BaseException as error:
        return reply("raised", type(error).__name__, str(error)[:300])
    for line in requests:
        try:
            args, kwargs = json.loads(line)
            args, kwargs = map(decode, args), {k: decode(v) for k, v in kwargs.items()}
            reply("returned", encode(function(*args, **kwargs)))
        except BaseException as error:
            reply("raised", type(error).__name__, str(error)[:300])


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
REFUSED_EVENTS = (
    "socket. subprocess. ctypes. shutil. resource. pty. signal.pthread_kill mmap. os.fork os.exec "
    "os.posix_spawn os.spawn os.system os.kill os.remove os.rename os.rmdir os.mkdir os.link "
    "os.symlink os.chmod os.chown os.chflags os.lchown os.truncate os.utime os.setxattr"
).split()
REFUSED_MODULES = (
    "ctypes _ctypes socket _socket subprocess _posixsubprocess multiprocessing _multiprocessing "
    "signal _signal pty fcntl resource ssl _ssl http urllib asyncio faulthandler"
).split()


def refuse_everything_but_computing():
    """Where there are no namespaces: an audit hook, which Python code cannot take away again."""
    here, stdlib = os.getcwd() + os.sep, os.path.dirname(os.__file__) + os.sep
    vars(signal).pop("pidfd_send_signal", None)  # raises no audit event
    for module in (os, sys.modules["posix"]):
        for name in ("setsid", "setpgid", "setpriority"):  # neither do these
            vars(module).pop(name, None)
    for name in REFUSED_MODULES:
        sys.modules.pop(name, None)

    def may_open(path, writes):
        if isinstance(path, int):
            return False
        path = os.path.join(os.path.realpath(os.fsdecode(path or ".")), "")
        reads_library = path.startswith(stdlib) and "-packages" not in path and not writes
        return reads_library or path.startswith(here)

    def refuse(event, args):
        if event in ("open", "os.listdir", "os.scandir"):
            if not may_open(args[0], event == "open" and args[2] & WRITING):
                raise PermissionError("files outside the temporary directory are refused")
        elif event == "import" and args[0].split(".")[0] in REFUSED_MODULES:
            raise ImportError(f"import of {args[0]} is refused")
        elif any(event.startswith(name) for name in REFUSED_EVENTS):
            raise PermissionError(f"{event} is refused")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    serve(sys.argv[2], guarded=sys.argv[3] == "guarded")
