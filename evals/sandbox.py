"""Does a program pass its tests? HumanEval's programs run here, assumed hostile.

Three processes: this one, a *judge* that holds the tests, and the *program*. The program never
shares an interpreter with the tests: it receives the arguments of one call at a time as plain data
and sends back one plain value, so there is no checker in its reach to patch and no verdict for it
to write. A pass is the judge's own word, marked with a number drawn for this check that only the
judge was told.

Where the kernel allows (`Result.isolation == "namespaces"`) the program has its own process,
network, mount and IPC namespaces, sees a read-only standard library and an empty /tmp, and whatever
it started dies with it. Elsewhere ("refused imports") an audit hook that Python code cannot remove
refuses sockets, processes, signals, ctypes and files outside the temporary directory; that is
weaker. Both have limits on CPU, memory, file size, open files and processes, and one time-out.

Not covered: a hole in the kernel or in the interpreter, and hostile tests: `problem["prompt"]` and
`problem["test"]` come with the benchmark and the judge trusts them. Programs get the standard
library only. Returned objects that are no builtin data (own classes, arrays) equal nothing, so they
fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

WORKER = Path(__file__).with_name("sandbox_worker.py")
MEGABYTE = 2**20
LIMITS = {  # names as in setrlimit(2), each for one process of the program
    "AS": 512 * MEGABYTE,
    "FSIZE": MEGABYTE,
    "NOFILE": 32,
    "NPROC": 8,
}
LARGEST_VALUE = 8 * MEGABYTE  # one encoded argument list or returned value
ISOLATIONS = ("namespaces", "refused imports")


class SandboxError(RuntimeError):
    """The sandbox itself could not run; this says nothing about the program."""


@dataclass(frozen=True)
class Result:
    """Whether the tests passed, the reason ("passed" if so), and how the program was confined."""

    passed: bool
    reason: str
    isolation: str


def check(
    problem: dict[str, str],
    completion: str,
    timeout: float = 10.0,
    isolation: str | None = None,
) -> Result:
    """Run `problem["prompt"] + completion` against `problem["test"]`, confined.

    Args:
        problem: HumanEval's dict with the strings prompt, test and entry_point.
        completion: the text that continues the prompt.
        timeout: wall-clock seconds for everything, starting the processes included.
        isolation: "namespaces" or "refused imports"; None takes the first that works here.

    Raises:
        ValueError: a key is missing or an argument is out of range.
        SandboxError: no way to confine a program works on this machine.
    """
    for key in ("prompt", "test", "entry_point"):
        if not isinstance(problem.get(key), str):
            raise ValueError(f"problem[{key!r}] is {problem.get(key)!r}: give HumanEval's string")
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r}: give seconds > 0")
    if isolation is not None and isolation not in ISOLATIONS:
        raise ValueError(f"isolation={isolation!r}: give one of {ISOLATIONS} or None")
    tried = []
    for way in [isolation] if isolation else ISOLATIONS:
        verdict = run_judge(problem, completion, timeout, way)
        if "cannot" not in verdict:
            return Result(verdict["passed"], verdict["reason"], way)
        tried.append(f"{way}: {verdict['cannot']}")
    raise SandboxError(f"no program can be confined here ({'; '.join(tried)})")


def run_judge(problem: dict[str, str], completion: str, timeout: float, isolation: str) -> dict:
    """One judge process: its verdict, or why there is none. Nothing of it is alive afterwards."""
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="dlmdecode-", ignore_cleanup_errors=True) as folder:
        job = {
            "prompt": problem["prompt"],
            "completion": completion,
            "test": problem["test"],
            "entry_point": problem["entry_point"],
            "isolation": isolation,
            "folder": folder,
            "nonce": nonce,
            "largest": LARGEST_VALUE,
            "limits": {**LIMITS, "CPU": int(timeout) + 2},
        }
        judge = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WORKER), "judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, to be killed as one
        )
        try:
            output, _ = judge.communicate(json.dumps(job).encode(), timeout)
        except subprocess.TimeoutExpired:
            return {"passed": False, "reason": f"timed out after {timeout:g} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(judge.pid, signal.SIGKILL)
            judge.wait()
            for pipe in (judge.stdin, judge.stdout):
                if pipe:
                    pipe.close()
    return read_verdict(output, nonce)


def read_verdict(output: bytes, nonce: str) -> dict:
    """The judge's last word, if it knows the number it was told."""
    try:
        verdict = json.loads(output)
    except ValueError:
        return {"passed": False, "reason": "the judge was killed before its verdict"}
    if verdict.pop("nonce", None) != nonce:
        return {"passed": False, "reason": "a verdict that is not the judge's"}
    return verdict
