"""What a model would have answered after each step: what is written, and proposals for the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from dlmdecode.trace.file import Run
from dlmdecode.trace.view import DRAFTS, picked

NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
Answer = Callable[[str], str | None]
"""What a text answers; None where it has no answer."""


def last_number(text: str) -> str | None:
    """The last number of a text."""
    found = NUMBER.findall(text)
    return found[-1] if found else None


def matching(pattern: str) -> Answer:
    """The last match of a regular expression, or of its first group.

    Raises `ValueError` for what is none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"answer={pattern!r}: {error}; give a regular expression") from error

    def answer(text: str) -> str | None:
        found = compiled.findall(text)
        return None if not found else found[-1] if isinstance(found[-1], str) else found[-1][0]

    return answer


def texts(run: Run, row: int) -> Iterator[str]:
    """The whole text of a row as it would read after each of its steps.

    Positions that are neither written nor proposed are left out, and so are end tokens.
    """
    mask, ends = run.header["mask_id"], set(run.header["eos_ids"])
    written, proposed = dict[int, int](), dict[int, int]()
    for step in run.steps:
        if row not in step["rows"]:
            continue
        for name, kept in (("given", written), ("drafts", proposed), ("writes", written)):
            kept.update(picked(step[name], row, DRAFTS) if step[name] else ())
        standing = {at: token for at, token in written.items() if token != mask}
        whole = proposed | standing
        ids = (whole[at] for at in sorted(whole))
        yield "".join(run.vocabulary[id] for id in ids if id not in ends)


def settled(answers: list[str | None]) -> int:
    """The number of the step from which on the answer is the last one, 1 for the first."""
    last = len(answers)
    while last > 1 and answers[last - 2] == answers[-1]:
        last -= 1
    return last
