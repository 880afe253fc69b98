"""What `speculate` gives: a text, and how each verification went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One verification: a step of speculation, not one of denoising (`dlmdecode.Step`).

    Attributes:
        row: which prompt.
        number: 1, 2, … within the row.
        length: tokens that the draft-length rule asked for, cut at the end of the text.
        draft: ids of the draft in the verifier's vocabulary; empty where nothing was drafted.
        accepted: how many of them stand.
        written: ids this step added: accepted draft tokens and the verifier's own one.
        parent: index of the draft token that each one follows, -1 for the text's end; in a chain
            parent[i] is i - 1.
        path: indices of the draft tokens that stand, in order.
    """

    row: int
    number: int
    length: int
    draft: tuple[int, ...]
    accepted: int
    written: tuple[int, ...]
    parent: tuple[int, ...]
    path: tuple[int, ...]


@dataclass
class Speculation:
    """What `speculate` returns.

    Attributes:
        sequences: (B, P+G) int64, each row prompt then text, right-padded.
        texts: the text of each row without prompt and special tokens; None without a tokenizer.
        new_tokens: tokens of each row's text, its EOS included.
        stats: over all rows, in vLLM's terms. Steps with a draft: num_spec_steps; their tokens:
            num_draft_tokens, num_accepted_draft_tokens; draft_acceptance_rate; the mean per step
            without (mean_accepted_tokens, DiffuSpec's MAT) and with the verifier's own token
            (mean_acceptance_length); acceptance_histogram[j]: steps that accepted j tokens.
            verifier_forwards, each over all rows that are still written where those are verified
            together; drafter_forwards, new_tokens, tokens_per_second, and seconds, of which
            draft_seconds, search_seconds, verify_seconds. lossless: whether each token is the
            verifier's own choice.
        trace: every `Step`, row after row.
    """

    sequences: Tensor
    texts: list[str] | None
    new_tokens: list[int]
    stats: dict[str, Any]
    trace: list[Step]
