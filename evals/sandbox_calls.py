"""System calls: how the jail makes them, and which of a program's the kernel refuses.

Standard library only.
"""

import os
import struct
import sys

DEATH_SIGNAL, DUMPABLE, SECCOMP, NO_NEW_PRIVILEGES = 1, 4, 22, 38  # prctl
FILTER, ALLOW, REFUSE = 2, 0x7FFF0000, 0x00050001  # seccomp: mode, and answers (EPERM)
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MEMORY_CALLS = {  # what no limit counts: IPC that outlives its maker, and ways around this list
    "x86_64": {"shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "io_uring_setup": 425},
    "aarch64": {"shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "io_uring_setup": 425},
}
OUTSIDE_CALLS = {  # what namespaces keep in, where there are none
    "x86_64": {
        "socket": 41, "socketpair": 53, "kill": 62, "ptrace": 101, "setpgid": 109, "setsid": 112,
        "rt_sigqueueinfo": 129, "setpriority": 141, "tkill": 200, "tgkill": 234, "unshare": 272,
        "rt_tgsigqueueinfo": 297, "process_vm_readv": 310, "process_vm_writev": 311,
        "pidfd_send_signal": 424,
    },
    "aarch64": {
        "socket": 198, "socketpair": 199, "kill": 129, "ptrace": 117, "setpgid": 154, "setsid": 157,
        "rt_sigqueueinfo": 138, "setpriority": 140, "tkill": 130, "tgkill": 131, "unshare": 97,
        "rt_tgsigqueueinfo": 240, "process_vm_readv": 270, "process_vm_writev": 271,
        "pidfd_send_signal": 424,
    },
}  # fmt: skip


def system(name, *args):
    """A libc call; OSError where it says no."""
    import ctypes  # here, so that the program does not start with it

    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    if getattr(libc, name)(*encoded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def prctl(option, value, more=0):
    if sys.platform == "linux":
        system("prctl", option, value, more, 0, 0)


def refuse_calls(weak):
    """Have the kernel refuse some system calls, to this process and to all that it starts."""
    import ctypes

    machine = os.uname().machine
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        return
    calls = MEMORY_CALLS[machine] | (OUTSIDE_CALLS[machine] if weak else {})
    numbers, size = sorted(calls.values()), len(calls)
    load, equal, least, answer = 0x20, 0x15, 0x35, 0x06  # BPF: code, jump if true, if false, value
    program = [
        (load, 0, 0, 4),
        (equal, 0, size + 3, ARCHITECTURES[machine]),
        (load, 0, 0, 0),
        (least, size + 1, 0, 0x40000000),  # the same calls under x32's numbers
        *((equal, size - i, 0, number) for i, number in enumerate(numbers)),
        (answer, 0, 0, ALLOW),
        (answer, 0, 0, REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    prctl(SECCOMP, FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
