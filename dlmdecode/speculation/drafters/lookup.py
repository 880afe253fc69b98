"""Drafts that stand in the text already."""

from __future__ import annotations

from dlmdecode.checks import Count, conform
from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.drafters.registry import register_drafter


@register_drafter("lookup", paper="Saxena 2023, prompt lookup decoding")
class PromptLookup(Drafter):
    """The continuation of the last earlier place where the text's end stood before.

    Args:
        longest: tokens of the end that are looked for first; then fewer, down to one.
    """

    def __init__(self, longest: Count = 3):
        self.longest: int = conform("longest", longest, Count)

    def draft(self, prefix: list[int], length: int) -> list[int]:
        for size in range(min(self.longest, len(prefix) - 1), 0, -1):
            end = prefix[-size:]
            for start in range(len(prefix) - size - 1, -1, -1):
                if prefix[start : start + size] == end:
                    return prefix[start + size : start + size + length]
        return []
