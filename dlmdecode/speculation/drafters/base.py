"""What proposes drafts, and what drafters share.

A drafter is any object with `draft(prefix, length)`. It returns at most `length` token ids, or the
`TopM` tokens of each position, through which a path is then searched. It must be a function of its
arguments: the verification of sampled text relies on that.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dlmdecode.speculation.diffuspec.lattice import TopM


@runtime_checkable
class Drafter(Protocol):
    """See the module. Ids are the drafter's own; optional attributes that `speculate` reads:

    `tokenizer`, `vocab_size` and `eos_ids` (None, None and () if absent: ids are the verifier's),
    and `searched` (True if absent: what it drafts can be a `TopM`).
    """

    def draft(self, prefix: list[int], length: int) -> TopM | list[int]: ...


def num_shared(ids: list[int], others: list[int]) -> int:
    """With how many equal tokens two texts begin."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ids), len(others)))
