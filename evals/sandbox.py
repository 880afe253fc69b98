"""Does a program pass its tests? HumanEval's programs run here, assumed hostile.

Three processes: this one, a *judge* that holds the tests, and the *program*. The program never
shares an interpreter with the tests: it is sent the calls and sends back their results as data
(`sandbox_pipe`), so there is no checker in its reach to patch and no verdict for it to write. A
pass is the judge's own word, marked with a number drawn for this check that only the judge was
told.

Two isolations. Under both the program has limits on CPU, memory, file size, open files and
processes, no System V memory (on x86-64 and AArch64) and one time-out, and it is never root.

"namespaces" is the default, and where the kernel does not grant it no program runs. The program
has its own processes, network, mounts and IPC, sees a read-only standard library and an empty /tmp
of bounded size and number of files, and whatever it started dies with it.

"weak" is run only where asked for by name (containers often grant no namespaces). It is a guard
against accidents, not against intent. The kernel refuses processes and threads, and on Linux
sockets and signals. Files outside the temporary folder are refused by an audit hook alone, and
Python code that means to can go around it (it may patch what the hook calls): it then reads and
writes whatever its user may, which is an unused one where root runs it, and else you. What it
writes cannot change a verdict of this process, which has read its own sources before. The number of
its files has no bound but the time-out.

Not covered: a hole in the kernel or in the interpreter, and hostile tests: `problem["prompt"]` and
`problem["test"]` come with the benchmark and the judge trusts them. Programs get the standard
library only. Instances of own classes are no data: a returned one equals nothing, so it fails.
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
from functools import cache
from pathlib import Path

MEGABYTE = 2**20
EACH = {"AS": 512 * MEGABYTE, "FSIZE": MEGABYTE, "NOFILE": 32}  # as in setrlimit(2)
LIMITS = {  # for each process of a program
    "namespaces": {**EACH, "NPROC": 8},
    "weak": {**EACH, "NPROC": 1},  # no other process and no thread
}
LONGEST = 1e6  # seconds of a program
LARGEST_VALUE = 8 * MEGABYTE  # one encoded argument list or returned value
ISOLATIONS = ("namespaces", "weak")
BOOT = """\
import json, sys, types
for name, source in json.loads(sys.argv.pop(1)):
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(compile(source, name, "exec"), vars(made))
"""


def command(*modules: str) -> list[str]:
    """Arguments of a Python that runs these modules of this package, the last as its main one.

    Their text is passed, as it is now: inside the jail there is nothing to import, and a program
    that rewrites the files changes nothing.
    """
    sources = [
        (
            "__main__" if name == modules[-1] else f"dlmdecode.evals.{name}",
            Path(__file__).with_name(f"{name}.py").read_text(),
        )
        for name in modules
    ]
    return ["-s", "-S", "-c", BOOT, json.dumps(sources)]


JUDGE = command(
    "sandbox_calls",
    "sandbox_jail",
    "sandbox_values",
    "sandbox_pipe",
    "sandbox_program",
    "sandbox_worker",
)
PROGRAM = command("sandbox_values", "sandbox_pipe", "sandbox_program")


class SandboxError(OSError):
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
    isolation: str = "namespaces",
) -> Result:
    """Run `problem["prompt"] + completion` against `problem["test"]`, confined.

    Args:
        problem: HumanEval's dict with the strings prompt, test and entry_point.
        completion: the text that continues the prompt.
        timeout: wall-clock seconds for everything, starting the processes included.
        isolation: "namespaces", or "weak" where those are not to be had.

    Raises:
        ValueError: a key is missing or an argument is out of range.
        SandboxError: this isolation does not work on this machine.
    """
    for key in ("prompt", "test", "entry_point"):
        if not isinstance(problem.get(key), str):
            raise ValueError(f"problem[{key!r}] is {problem.get(key)!r}: give HumanEval's string")
    if not isinstance(completion, str):
        raise ValueError(f"completion={completion!r}: give text")
    check_timeout(timeout)
    if isolation not in ISOLATIONS:
        raise ValueError(f"isolation={isolation!r}: give one of {', '.join(ISOLATIONS)}")
    verdict = run_judge(problem, completion, timeout, isolation)
    if "cannot" in verdict:
        raise SandboxError(f"isolation={isolation!r} does not work here: {verdict['cannot']}")
    return Result(verdict["passed"], printable(verdict["reason"]), isolation)


def check_timeout(timeout: float) -> None:
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not (number and 0 < timeout <= LONGEST):
        raise ValueError(f"timeout={timeout!r}: give seconds, above 0 and at most {LONGEST:g}")


def choose_isolation(task: str, allow_code_execution: bool, weak_isolation: bool) -> str:
    """The isolation that a task's programs will have on this machine.

    Raises `ValueError` where running programs was not allowed, or is not safe here.
    """
    if not allow_code_execution:
        raise ValueError(f"{task} runs programs that the model wrote: pass --allow-code-execution")
    strong = obstacle("namespaces")
    if strong is None:
        return "namespaces"
    if not weak_isolation:
        raise ValueError(
            f"no program runs here, because the kernel grants no namespaces ({strong}): run as an "
            "ordinary user or with CAP_SYS_ADMIN, or pass --weak-isolation, a guard against "
            "accidents only"
        )
    weak = obstacle("weak")
    if weak is not None:
        raise ValueError(f"no program can be confined here (namespaces: {strong}; weak: {weak})")
    return "weak"


@cache
def obstacle(isolation: str) -> str | None:
    """Why this isolation does not work on this machine; None if it does."""
    empty = {"prompt": "def f():\n", "test": "def check(f): f()\n", "entry_point": "f"}
    verdict = run_judge(empty, "    pass\n", 60.0, isolation)
    return verdict.get("cannot") or (None if verdict["passed"] else verdict["reason"])


def printable(text: str) -> str:
    """A program's words in one short line that any file and terminal takes."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:300])
    return "".join(shown)[:300]


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
            "program": [*PROGRAM, problem["entry_point"], isolation, str(LARGEST_VALUE)],
            "nonce": nonce,
            "largest": LARGEST_VALUE,
            "limits": {**LIMITS[isolation], "CPU": min(int(timeout) + 2, 10**6)},
        }
        judge = subprocess.Popen(
            [sys.executable, "-I", *JUDGE],
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
