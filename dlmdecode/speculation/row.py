"""A text that is being written, and the loop that writes several of them together."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlmdecode.decoding.noise import uniform
from dlmdecode.speculation.drafters import Observation
from dlmdecode.speculation.result import Step
from dlmdecode.speculation.source import Source, drafts_of
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.acceptance import TypicalAcceptance, TypicalChoices
from dlmdecode.speculation.verifier.cached_model import CachedModel, Ending
from dlmdecode.speculation.verifier.verification import Choices, Verdict, walk


class Row:
    """One text of a batch: what `generate` prepared for it, its drafts, and what was written.

    Args:
        number: which prompt.
        source: where its drafts come from.
        key: of its random numbers, to sample; None for greedy.
        rule: what stands beside the verifier's own choices; None for nothing.
        on_step: called with every `Step`.
    """

    def __init__(
        self,
        number: int,
        source: Source,
        key: Tensor | None,
        rule: TypicalAcceptance | None = None,
        on_step: Callable[[Step], None] | None = None,
    ):
        self.number, self.source, self.key, self.on_step = number, source, key, on_step
        self.rule = rule
        self.steps: list[Step] = []
        self.ended = False
        self.length = self.generated = 0  # tokens asked for in a draft, and those before an EOS
        self.verify_seconds = 0.0

    def prepare(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Called by transformers' `generate` in place of a decoding loop of its own."""
        del kwargs, generation_config  # their cache is not one that can be rewound
        self.model, self.processors = model, logits_processor
        self.text: list[int] = input_ids[0].tolist()
        self.ending = Ending(stopping_criteria, input_ids.device)
        return input_ids

    def limit(self, room: float) -> None:
        """Draft as many tokens as the rule says, `room` at most."""
        left = min(room, self.ending.max_length - len(self.text) - 1)
        self.length = int(min(self.source.lengths.length, left))

    def walk(self, draft: Draft, scores: Tensor) -> Verdict:
        """What the verifier writes, given its scores after the text and each node."""
        chosen: Any = Choices(scores, self.text, self.processors, self.noise(len(draft)))
        if self.rule is not None:
            chosen = TypicalChoices(chosen, draft, self.rule)
        return walk(draft, chosen, partial(self.ending, self.text))

    def noise(self, length: int) -> Tensor | None:
        """Random numbers of the next length + 1 positions."""
        if self.key is None:
            return None
        start = len(self.text)
        position = torch.arange(start, start + length + 1, device=self.key.device)
        return uniform(self.key, position)

    def add(self, draft: Draft, scores: Tensor, verdict: Verdict, seconds: float) -> None:
        """Write what was verified, and tell those who learn from it."""
        path, written, self.ended = verdict
        self.verify_seconds += seconds
        before, scores = scores.tensor_split([-len(draft) - 1])
        self.source.observe(Observation(self.text, draft, scores, path, written, seconds, before))
        self.text += written
        self.source.lengths.update(self.generated, len(path))
        number, ids, parent = len(self.steps) + 1, tuple(draft.token), tuple(draft.parent)
        more = len(path), tuple(written), parent, tuple(path)
        self.steps.append(Step(self.number, number, self.length, ids, *more))
        if self.ended:
            self.source.finish(self.text)
        if self.on_step is not None:
            self.on_step(self.steps[-1])


def drafted(rows: list[Row]) -> list[Draft]:
    """The rows' drafts, made together."""
    sources, texts = [row.source for row in rows], [row.text for row in rows]
    found = drafts_of(sources, texts, [row.length for row in rows])
    for row, (_, generated) in zip(rows, found, strict=True):
        row.generated = generated
    return [draft for draft, _ in found]


@torch.no_grad()
def write(rows: list[Row]) -> int:
    """Write the texts of rows, each step one forward of the verifier over all that go on; how many
    forwards that were."""
    cached = CachedModel(rows[0].model, len(rows))
    while rows:
        for row in rows:
            row.limit(cached.room(len(row.text)))
        drafts = drafted(rows)
        began = time.perf_counter()
        drafts = [cached.fits(at, len(rows[at].text), draft) for at, draft in enumerate(drafts)]
        before = 0 if cached.calls else rows[0].source.drafter.prompt_scores
        scores = cached([row.text for row in rows], drafts, before)
        each = list(zip(rows, drafts, scores, strict=True))
        verdicts = [row.walk(draft, own[-len(draft) - 1 :]) for row, draft, own in each]
        cached.keep([len(row.text) for row in rows], [verdict.path for verdict in verdicts])
        seconds = (time.perf_counter() - began) / len(rows)
        for (row, draft, own), verdict in zip(each, verdicts, strict=True):
            row.add(draft, own, verdict, seconds)
        left = [at for at, row in enumerate(rows) if not row.ended]
        if 0 < len(left) < len(rows):
            cached.only(left)
        rows = [rows[at] for at in left]
    return cached.calls
