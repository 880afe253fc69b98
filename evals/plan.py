"""Which sampler answers which problems, and in which batches."""

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


@dataclass(frozen=True)
class Job:
    """One call of `generate`: the problems, their prompts, and who answers."""

    contender: Contender
    problems: tuple[int, ...]
    prompts: tuple[Prompt, ...]


def plan(
    task: Task, contenders: Sequence[Contender], batch_size: int, stages: Sequence[int] = ()
) -> list[Job]:
    """Every batch of the run: problems of similar length together, longest first.

    All samplers decode a batch before the next one, so that whatever else the machine does falls on
    all of them alike. `stages`: how many problems the run had each time it was extended; batches
    of one stage stay as they are in the next.
    """
    prompts = [task.prompt(i) for i in range(len(task))]
    lengths = [len(json.dumps(prompt)) for prompt in prompts]
    batches: list[list[int]] = []
    for start, stop in itertools.pairwise((0, *(stages or (len(task),)))):
        order = sorted(range(start, stop), key=lambda i: (-lengths[i], i))
        batches += [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    return [
        Job(contender, tuple(batch), tuple(prompts[i] for i in batch))
        for batch in batches
        for contender in contenders
    ]
