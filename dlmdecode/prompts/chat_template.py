"""Chat messages as one text, by the template that comes with a tokenizer.

A template is a program from whoever made the checkpoint. transformers runs it in Jinja's sandbox,
which keeps it from everything but time and memory: a loop in a loop, or one multiplication, takes
all of either. So it runs in a fork of this process that has little of both. Where there is no
Linux, only the length of what it wrote is checked.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from dlmdecode.checks import require

SECONDS = 10.0
MEMORY = 2**29  # bytes beyond what the process has
MORE = 2**20  # characters beyond twice those of the messages
FORKS = sys.platform == "linux"


def render(tokenizer: Any, messages: Sequence[Any], begin_turn: bool = True) -> str:
    """The text of the messages, up to where the model's turn begins.

    Args:
        begin_turn: False leaves the last message open, for the model to continue it.

    Raises:
        ValueError: no template, one that fails or refuses the messages, or one that takes more than
            10 seconds or 512 MiB, or writes a million characters beyond twice the messages' own.
    """
    template = getattr(tokenizer, "chat_template", None)
    fix = "the tokenizer has no chat template: give text"
    require(template is not None, "prompt", messages, fix)
    return (forked if FORKS else written)(tokenizer, messages, begin_turn)


def written(tokenizer: Any, messages: Sequence[Any], begin_turn: bool) -> str:
    """What the template writes, in this process."""
    how = {"add_generation_prompt": begin_turn, "continue_final_message": not begin_turn}
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    except MemoryError as error:
        raise ValueError(f"the chat template takes more than {MEMORY >> 20} MiB") from error
    except Exception as error:  # of a program that anyone may have written
        fix = f"the chat template does not take the messages: {error}"
        raise ValueError(f"prompt: {fix}") from error
    most = MORE + 2 * len(str(messages))
    if len(text) > most:
        raise ValueError(f"the chat template writes {len(text)} characters; at most {most} may be")
    return text


def forked(tokenizer: Any, messages: Sequence[Any], begin_turn: bool) -> str:
    """What the template writes, in a process of its own with limits."""
    source, sink = os.pipe()
    with warnings.catch_warnings():  # threads are not copied, and the child needs none
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        write_and_exit(sink, tokenizer, messages, begin_turn)
    os.close(sink)
    try:
        answer = read_all(source, time.monotonic() + SECONDS)
    finally:
        os.close(source)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        raise ValueError(f"the chat template takes more than {SECONDS:g} seconds")
    verdict, text = answer[:1], answer[1:].decode("utf-8", "surrogatepass")
    if verdict != b"+":
        raise ValueError(text or "the chat template ended its process")
    return text


def write_and_exit(
    sink: int, tokenizer: Any, messages: Sequence[Any], begin_turn: bool
) -> NoReturn:
    """The child: limits itself, renders, answers, and is gone without cleaning up after others."""
    import resource

    try:
        with open("/proc/self/statm") as pages:
            size = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answer = b"+" + written(tokenizer, messages, begin_turn).encode("utf-8", "surrogatepass")
    except BaseException as error:
        answer = b"-" + str(error)[:1000].encode("utf-8", "surrogatepass")
    try:
        with os.fdopen(sink, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def read_all(source: int, deadline: float) -> bytes | None:
    """Everything up to the end of a pipe; None where that takes too long."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([source], [], [], left)[0]:
            break
        part = os.read(source, 2**20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None
