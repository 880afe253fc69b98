"""What a server allows its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most of everything; beyond, a request is refused and nothing decoded for it."""

    body: int = 2**20  # bytes of a request
    tokens: int = 1024  # positions of a text
    choices: int = 64  # texts of a request
    queue: int = 256  # texts that wait for a place
    engines: int = 8  # settings that are decoded side by side
