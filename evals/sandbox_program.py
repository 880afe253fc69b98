"""The process of a program under test: defines it, then answers the tests' calls.

`guard` is all that keeps it in under the weak isolation. Standard library only.
"""

import json
import os
import signal
import sys
import types

from dlmdecode.evals.sandbox_pipe import Peer
from dlmdecode.evals.sandbox_values import exception_class

REQUEST, REPLY = 3, 4  # the two pipes


def compiled(source):
    """Its code; `from __future__` may stand anywhere, as in a module that follows the prompt."""
    if "__future__" not in source:
        return compile(source, "program", "exec")
    import ast

    tree = ast.parse(source)
    tree.body.sort(key=lambda node: getattr(node, "module", None) != "__future__")
    return compile(tree, "program", "exec")


def module(name):
    """A module that libraries find by name (dataclasses ask for it)."""
    made = sys.modules[name] = types.ModuleType(name)
    return vars(made)


def serve(entry_point, guarded, largest):
    """Define the program (the first line to come), then answer calls until the judge hangs up."""
    space = module("program")
    peer = Peer(
        os.fdopen(REQUEST, "rb"),
        os.fdopen(REPLY, "wb"),
        largest,
        lambda *name: exception_class(space, *name),
    )
    if guarded:
        guard()

    def define(source):
        exec(compiled(source), space)
        peer.held[0] = space[entry_point]

    peer.held.append(define)
    peer.send(json.dumps(["started"]))
    for line in peer.reader:
        peer.answer(*json.loads(line))


# ---- the weak isolation: what Python itself can refuse ----

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
REFUSED_EVENTS = (
    "socket. subprocess. ctypes. shutil. resource. pty. signal.pthread_kill mmap. os.fork os.exec "
    "os.posix_spawn os.spawn os.system os.kill os.remove os.rename os.rmdir os.mkdir os.link "
    "os.symlink os.chmod os.chown os.chflags os.lchown os.truncate os.utime os.setxattr sqlite3. "
    "cpython.PyInterpreterState_New"
).split()
REFUSED_MODULES = frozenset(
    "ctypes _ctypes socket _socket subprocess _posixsubprocess multiprocessing _multiprocessing "
    "signal _signal pty fcntl resource ssl _ssl faulthandler sqlite3 _sqlite3 "
    "dbm _dbm _gdbm _xxsubinterpreters _interpreters _testcapi _testinternalcapi".split()
)


def guard():
    """An audit hook: Python code cannot take it away again, but patch what it calls."""
    here, stdlib = (os.path.realpath(path) + os.sep for path in (".", os.path.dirname(os.__file__)))
    vars(signal).pop("pidfd_send_signal", None)  # raises no audit event
    for system in (os, sys.modules["posix"]):
        for name in ("setsid", "setpgid", "setpriority"):  # neither do these
            vars(system).pop(name, None)
    for name in REFUSED_MODULES:
        sys.modules.pop(name, None)

    def may_open(path, writes):
        if isinstance(path, int):
            return False
        path = os.path.join(os.path.realpath(os.fsdecode(path or ".")), "")
        reads_library = path.startswith(stdlib) and "-packages" not in path and not writes
        return reads_library or path.startswith(here)

    def refuse(event, args):
        if event in ("os.listdir", "os.scandir"):
            allowed = may_open(args[0], False)
        elif event == "open":  # an open folder would lead past this, as a dir_fd
            allowed = may_open(args[0], args[2] & WRITING) and not os.path.isdir(args[0])
        else:
            allowed = not any(event.startswith(name) for name in REFUSED_EVENTS)
        if event == "import" and not REFUSED_MODULES.isdisjoint(args[0].split(".")):
            raise ImportError(f"import of {args[0]} is refused")
        if not allowed:
            raise PermissionError(f"{event} {args[0] if args else ''} is refused")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    serve(sys.argv[1], guarded=sys.argv[2] == "weak", largest=int(sys.argv[3]))
