"""Fused ops: what a decoding step does with logits, in one read of them.

Each op has a file: the public function with its checks, and `reference`, which says in plain torch
what the op means, is the oracle of the tests, and takes the place of the C++ and CUDA kernels
(`csrc/`) where the extension was not built. `DLMDECODE_REFERENCE=1` forces it.
"""

from dlmdecode.ops.candidates import candidates
from dlmdecode.ops.choose import choose
from dlmdecode.ops.commit import commit
from dlmdecode.ops.count_ngrams import count_ngrams
from dlmdecode.ops.credit import credit
from dlmdecode.ops.divergence import divergence
from dlmdecode.ops.extension import is_available
from dlmdecode.ops.lattice_tree import lattice_tree
from dlmdecode.ops.path_search import path_search
from dlmdecode.ops.propose import propose
from dlmdecode.ops.proposed import BAD, UNNEEDED, NoProposal, Proposed, check
from dlmdecode.ops.put import put
from dlmdecode.ops.survey import Row, Survey, survey
from dlmdecode.ops.topm import topm

__all__ = [
    "BAD",
    "UNNEEDED",
    "NoProposal",
    "Proposed",
    "Row",
    "Survey",
    "candidates",
    "check",
    "choose",
    "commit",
    "count_ngrams",
    "credit",
    "divergence",
    "is_available",
    "lattice_tree",
    "path_search",
    "propose",
    "put",
    "survey",
    "topm",
]
