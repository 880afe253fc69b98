"""Which sampler answers which problems, and in which order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlmdecode.checks import require
from dlmdecode.composition import Composition, read
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.evals.task import Prompt, Task
from dlmdecode.settings import Settings, resolve_aliases


@dataclass(frozen=True)
class Contender:
    """A sampler with options under the label it has in the results."""

    label: str
    spec: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, text: str) -> Contender:
        """`"adablock+credit,alpha=0.7"`; settings among the options win over the run's."""
        spec, options = read(text)
        return cls(text, spec, resolve_aliases(options))

    def build(self, arguments: Mapping[str, Any], family: str | None) -> Sampler:
        """The recipe, as `generate` builds it from these options over its own `arguments`.

        Raises `ValueError` or `TypeError` for a wrong name or option.
        """
        settings, options = Settings.of({**arguments, **self.options})
        several = settings.num_return_sequences
        require(several == 1, "num_return_sequences", several, "a problem has one answer")
        composition, options = Composition.read(self.spec, options)
        return composition.build(family, settings.facts, options)


BATCHES = 4  # that a job holds: more, and samplers take turns less often


@dataclass(frozen=True)
class Job:
    """One run of an engine: the problems, their prompts, who answers, and how many at a time."""

    contender: Contender
    problems: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    batch_size: int


def plan(
    task: Task, contenders: Sequence[Contender], batch_size: int, stages: Sequence[int] = ()
) -> list[Job]:
    """Every job of the run: problems of similar length together, longest first.

    All samplers do a job before the next one, so that whatever else the machine does falls on all
    of them alike. `stages`: how many problems the run had each time it was extended; jobs of one
    stage stay as they are in the next.
    """
    prompts = [task.prompt(i) for i in range(len(task))]
    lengths = [len(json.dumps(prompt)) for prompt in prompts]
    size = batch_size * BATCHES
    shares: list[list[int]] = []
    for start, stop in itertools.pairwise((0, *(stages or (len(task),)))):
        order = sorted(range(start, stop), key=lambda i: (-lengths[i], i))
        shares += [order[k : k + size] for k in range(0, len(order), size)]
    return [
        Job(contender, tuple(share), tuple(prompts[i] for i in share), batch_size)
        for share in shares
        for contender in contenders
    ]
