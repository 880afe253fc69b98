"""The judge: runs the tests, with a stand-in for the program's function.

`sandbox.check` starts it. Standard library only, so that it starts in milliseconds.
"""

import json
import os
import signal
import sys

from dlmdecode.evals.sandbox_jail import DEATH_SIGNAL, DUMPABLE, launch, limit, prctl
from dlmdecode.evals.sandbox_pipe import Peer, PipeError
from dlmdecode.evals.sandbox_program import module
from dlmdecode.evals.sandbox_values import exception_class


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
    requests, replies = launch(job)
    limit(AS=4 * job["limits"]["AS"], CPU=job["limits"]["CPU"])
    space = module("program")  # as the program's, so that the prompt's classes have one name
    peer = Peer(replies, requests, job["largest"], lambda *name: exception_class(space, *name))
    json.dump({"nonce": job["nonce"], **verdict(job, peer, space)}, answer)
    answer.flush()
    os._exit(0)


def verdict(job, peer, space):
    """Passed only after the last test; "cannot" where the program was never started."""
    try:
        kind, *data = peer.receive()
    except PipeError:
        kind, data = "cannot", ["Python did not start there"]
    if kind == "cannot":
        return {"cannot": data[0]}
    try:
        peer.call("call", 0, (job["prompt"] + job["completion"],), {})
        exec(stub(job["prompt"]), space)
        space[job["entry_point"]] = program = peer.stand_in("function", 0)
        exec(compile(job["test"], "test", "exec"), space)
        space["check"](program)
        reason = peer.broken or "passed"
    except BaseException as error:
        reason = peer.broken or f"{type(error).__name__}: {error}"
    return {"passed": reason == "passed", "reason": reason}


if __name__ == "__main__":
    judge()
