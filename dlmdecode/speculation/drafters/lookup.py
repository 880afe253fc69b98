"""Drafts that stand in the text already."""

from __future__ import annotations

from typing import Any

from dlmdecode.checks import Count, conform


class PromptLookup:
    """The continuation of the last earlier place where the text's end stood before.

    Args:
        longest: tokens of the end that are looked for first; then fewer, down to one.
        tokenizer: for `speculate` to compare vocabularies; None takes ids as the verifier's.
    """

    eos_ids: tuple[int, ...] = ()
    searched = False

    def __init__(self, longest: int = 3, tokenizer: Any = None):
        self.longest, self.tokenizer = conform("longest", longest, Count), tokenizer

    def draft(self, prefix: list[int], length: int) -> list[int]:
        for size in range(min(self.longest, len(prefix) - 1), 0, -1):
            end = prefix[-size:]
            for start in range(len(prefix) - size - 1, -1, -1):
                if prefix[start : start + size] == end:
                    return prefix[start + size : start + size + length]
        return []
