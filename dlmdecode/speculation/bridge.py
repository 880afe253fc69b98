"""Candidates of transformers' assisted generation, as drafters, and drafters as such candidates.

transformers has no public way to give `generate` one's own candidate generator; `AsCandidates` is
for code that drives the `CandidateGenerator` interface itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.generation.candidate_generator import CandidateGenerator

from dlmdecode.checks import require
from dlmdecode.speculation.drafters import Drafter
from dlmdecode.speculation.source import resolve_source
from dlmdecode.speculation.verifier.caching import drafted_by
from dlmdecode.speculation.verifier.verifier import resolve_verifier


class FromCandidates(Drafter):
    """A drafter from a transformers `CandidateGenerator`, such as its prompt lookup.

    Ids are the verifier's.
    """

    def __init__(self, generator: Any):
        self.generator, self.first = generator, True

    def draft(self, prefix: list[int], length: int) -> list[int]:
        text = drafted_by(self.generator, torch.tensor([prefix], device="cpu"), self.first)
        self.first = False
        return text[0, len(prefix) :][:length].tolist()


class AsCandidates(CandidateGenerator):
    """Diffusion drafts as a transformers `CandidateGenerator`; arguments as in `speculate`.

    It gives no candidate logits: the draft is a point mass, and transformers then compares it with
    the model's own choices, which is right for greedy and for sampled text.
    """

    def __init__(
        self,
        drafter: Any,
        verifier: Any,
        path_search: Any = "cps",
        proxy: Any = None,
        draft_length: Any = None,
        draft_steps: int = 1,
        vocabulary: Any = "auto",
    ):
        verifier = resolve_verifier(verifier)
        drafting = (path_search, proxy, draft_length, draft_steps, vocabulary)
        self.source = resolve_source(drafter, verifier, *drafting)
        self.generated = 0

    def get_candidates(self, input_ids: Tensor, **kwargs: Any) -> tuple[Any, Any]:
        """`input_ids` (1, L) with the draft behind it (1, L + k), and no logits."""
        del kwargs
        require(len(input_ids) == 1, "input_ids", tuple(input_ids.shape), "one sequence at a time")
        length = self.source.lengths.length
        draft, self.generated = self.source.draft(input_ids[0].tolist(), length)
        chain = input_ids.new_tensor([draft.first_chain().token])
        return torch.cat([input_ids, chain], 1), None

    def update_candidate_strategy(
        self, input_ids: Tensor, scores: Tensor, num_matches: int
    ) -> None:
        """Tell the draft-length rule how many draft tokens stand."""
        del input_ids, scores
        self.source.lengths.update(self.generated, int(num_matches))
