"""Fused ops: what a decoding step does with logits, in one read of them.

Each op is a `torch.library` custom op with C++ and CUDA kernels (`csrc/`), and a reference in
plain torch (`reference.py`) that says what it means, is the oracle of its tests, and takes its
place where the extension was not built. `DLMDECODE_REFERENCE=1` forces the reference.
"""

from dlmdecode.ops.extension import is_available
from dlmdecode.ops.ops import (
    NoProposal,
    candidates,
    check,
    commit,
    count_ngrams,
    credit,
    path_search,
    propose,
    topm,
)
from dlmdecode.ops.reference import BAD, UNNEEDED, Proposed

__all__ = [
    "BAD",
    "UNNEEDED",
    "NoProposal",
    "Proposed",
    "candidates",
    "check",
    "commit",
    "count_ngrams",
    "credit",
    "is_available",
    "path_search",
    "propose",
    "topm",
]
