"""`speculate`: draft, search, verify, until the verifier's text is written.

The verifier's own `generate` prepares everything (`custom_generate`): its generation config, logits
processors, stopping criteria and cache are those of plain decoding, so all that they mean holds
here, and what they refuse is refused. Only the loop that follows is ours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import Count, NonNegative, conform, require
from dlmdecode.decoding.noise import streams, uniform
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.settings import Seed
from dlmdecode.speculation.drafters import Observation
from dlmdecode.speculation.result import Speculation, Step
from dlmdecode.speculation.source import Source, resolve_source
from dlmdecode.speculation.streaming import Streaming
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.acceptance import (
    TypicalAcceptance,
    TypicalChoices,
    resolve_acceptance,
)
from dlmdecode.speculation.verifier.cached_model import CachedModel, Ending
from dlmdecode.speculation.verifier.options import check_options, text_options
from dlmdecode.speculation.verifier.verification import Choices, walk
from dlmdecode.speculation.verifier.verifier import pad, resolve_verifier
from dlmdecode.trace.verifications import SpeculationFile


def speculate(
    drafter: Any,
    verifier: Any,
    prompt: Any,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    path_search: Any = "cps",
    proxy: Any = None,
    draft_length: Any = None,
    seed: int | None = None,
    draft_steps: int = 1,
    acceptance: Any = "exact",
    vocabulary: Any = "auto",
    tokenizer: Any = None,
    attention_mask: Tensor | None = None,
    on_step: Callable[[Step], None] | None = None,
    trace: str | os.PathLike[str] | None = None,
    streamer: Any = None,
    **options: Any,
) -> Speculation:
    """Write what the verifier alone would have written, in fewer of its forwards (DiffuSpec,
    arXiv 2510.02358; with `draft_steps` > 1 and path_search="argmax" SpecDiff, arXiv 2408.05636).

    Args:
        drafter: a diffusion language model, a name or path for `load`, a `Drafter`, or the name of
            one, "lookup" or "lookup,longest=5"; see `list_drafters()`.
        verifier: a transformers causal LM, a name or path for `load_verifier`, or a `Verifier`.
        prompt: as in `generate`, in the verifier's vocabulary and chat template.
        max_new_tokens: at most this many tokens per prompt.
        temperature: 0 for greedy decoding; above, sampling from the verifier's distribution.
        path_search: "cps", "argmax", "tree", or a `PathSearch` or `LatticeTree` of one's own.
        proxy: n-gram that guides the search: an `NGram`, a path to one or to a KenLM file, any
            `Proxy`; None counts the prompt and the text as it grows.
        draft_length: "adaptive", "confidence", "entropy", "cost", a number of tokens, or an
            `AdaptiveLength`, `ConfidentLength`, `EntropyLength` or `CostLength` with other
            settings; None takes the drafter's own, which is "adaptive" where it says nothing.
        seed: key of all randomness, 0 if None; a row's text depends on seed and prompt only.
        draft_steps: denoising steps per draft of a diffusion language model.
        acceptance: "exact"; "typical", or a `TypicalAcceptance` with other settings, lets drafted
            tokens stand that the verifier did not choose but finds likely, greedy and sampled
            (Medusa, arXiv 2401.10774): longer drafts stand, and the text is no longer its own.
        vocabulary: "auto" needs identical tokenizers; else "string_match", "retokenize",
            "identity", or a dict {drafter id: verifier id}.
        tokenizer: the verifier's, where `verifier` is a bare transformers model.
        attention_mask: (B, P) for a tensor of prompts, 1 for a prompt's tokens.
        on_step: called with a `Step` after every verification.
        trace: a path to append the run to, as lines of JSON (docs/trace.md).
        streamer: transformers' protocol: `put(prompt)`, `put(ids)` after every verification,
            `end()` in any case; for a single prompt.
        **options: options of the verifier's own `generate` that shape its text: `top_k`, `top_p`,
            `stop_strings`, `repetition_penalty`, `guidance_scale`, `eos_token_id`,
            `logits_processor`, `stopping_criteria`, … Those of its generation_config count too.

    Rows are decoded one after the other and do not depend on each other. Equality with plain
    decoding is exact where the verifier's logits do not depend on how many positions one forward
    computes; in bfloat16 they do in the last bits, and near-ties may fall otherwise.

    Raises:
        FileNotFoundError: a name that is neither a drafter's nor a model's.
        ValueError: bad argument, one without effect, or one, given or in the generation_config,
            that asks for other decoding than token by token, or for a cache that cannot be
            rewound; the message names it, its value and the fix.
        TypeError: unknown option, with the closest known name.
    """
    temperature = conform("temperature", temperature, NonNegative)
    key = conform("seed", 0 if seed is None else seed, Seed)
    shown = Streaming(streamer, on_step)
    path = isinstance(trace, (str, os.PathLike, NoneType))
    require(path, "trace", trace, "give a path; every step is in the result's trace in any case")
    verifier = resolve_verifier(verifier, tokenizer)
    config = verifier.model.generation_config
    options = check_options(options, temperature, config, verifier.vocab_size)
    prompts = encode_prompts(prompt, attention_mask, verifier)
    max_new_tokens = conform("max_new_tokens", max_new_tokens, Count)
    check_context(prompts, max_new_tokens, verifier)
    drafting = (path_search, proxy, draft_length, draft_steps, vocabulary)
    source = resolve_source(drafter, verifier, *drafting)
    rule = resolve_acceptance(acceptance, source.lengths.longest)
    options = text_options(options, config, verifier.tokenizer) | {"do_sample": temperature > 0}
    if temperature > 0:
        options["temperature"] = temperature
    before = source.drafter.forwards
    began = time.perf_counter()
    loops = []
    named = {"drafter": type(source.drafter).__name__, "verifier": type(verifier.model).__name__}
    with shown, SpeculationFile(trace, verifier.tokenizer, prompts, named, shown.step) as file:
        shown.begin(prompts)
        for row, (ids, noise) in enumerate(zip(prompts, streams(prompts, key), strict=True)):
            loop = Loop(row, source.start(), noise if temperature > 0 else None, file.step, rule)
            verifier.model.generate(
                ids[None],
                attention_mask=torch.ones_like(ids)[None],
                max_new_tokens=max_new_tokens,
                custom_generate=loop,
                **options,
            )
            loops.append(loop)
        stats = summary(loops, time.perf_counter() - began)
        stats["drafter_forwards"] = source.drafter.forwards - before
        stats["lossless"] = rule is None
        rows = [torch.tensor(loop.tokens, device=verifier.device) for loop in loops]
        out = Speculation(
            pad(rows, verifier, options),
            verifier.decode(rows, prompts),
            [len(row) - len(ids) for row, ids in zip(rows, prompts, strict=True)],
            stats,
            [step for loop in loops for step in loop.steps],
        )
        file.end(out)
    return out


class Loop:
    """The decoding loop that transformers' `generate` calls, for one row."""

    def __init__(
        self,
        row: int,
        source: Source,
        key: Tensor | None,
        on_step: Callable[[Step], None] | None,
        rule: TypicalAcceptance | None = None,
    ):
        self.row, self.source, self.key, self.on_step = row, source, key, on_step
        self.rule = rule
        self.tokens: list[int] = []
        self.steps: list[Step] = []
        self.forwards, self.verify_seconds = 0, 0.0

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:
        del kwargs, generation_config  # their cache is not one that can be rewound
        self.tokens = text = input_ids[0].tolist()
        cached = CachedModel(model)
        ending = Ending(stopping_criteria, input_ids.device)
        done = False
        while not done:
            room = min(ending.max_length - len(text) - 1, cached.room(len(text)))
            length = int(min(self.source.lengths.length, room))
            draft, generated = self.source.draft(text, length)
            began = time.perf_counter()
            draft = cached.fits(len(text), draft)
            before = 0 if cached.calls else self.source.drafter.prompt_scores
            read, scores = cached(text, draft, before).tensor_split([-len(draft) - 1])
            chosen: Any = Choices(scores, text, logits_processor, self.noise(len(draft)))
            if self.rule is not None:
                chosen = TypicalChoices(chosen, draft, self.rule)
            path, written, done = walk(draft, chosen, partial(ending, text))
            cached.keep(len(text), path)
            seconds = time.perf_counter() - began
            self.verify_seconds += seconds
            self.source.observe(Observation(text, draft, scores, path, written, seconds, read))
            text += written
            self.source.lengths.update(generated, len(path))
            self.record(length, draft, path, written)
        self.forwards = cached.calls
        return torch.tensor([self.tokens], device="cpu")

    def noise(self, length: int) -> Tensor | None:
        """Random numbers of the next length + 1 positions."""
        if self.key is None:
            return None
        start = len(self.tokens)
        position = torch.arange(start, start + length + 1, device=self.key.device)
        return uniform(self.key, position)

    def record(self, length: int, draft: Draft, path: list[int], written: list[int]) -> None:
        number, ids, parent = len(self.steps) + 1, tuple(draft.token), tuple(draft.parent)
        more = len(path), tuple(written), parent, tuple(path)
        self.steps.append(Step(self.row, number, length, ids, *more))
        if self.on_step is not None:
            self.on_step(self.steps[-1])


def summary(loops: list[Loop], seconds: float) -> dict[str, Any]:
    """The statistics of `Speculation.stats`, but the drafter's forwards."""
    steps = [step for loop in loops for step in loop.steps if step.draft]
    drafted, accepted = sum(len(s.draft) for s in steps), sum(s.accepted for s in steps)
    histogram = [0] * (max((s.accepted for s in steps), default=-1) + 1)
    for step in steps:
        histogram[step.accepted] += 1
    mean = accepted / max(len(steps), 1)
    total = sum(len(step.written) for loop in loops for step in loop.steps)
    return {
        "mean_accepted_tokens": mean,
        "mean_acceptance_length": mean + 1,
        "draft_acceptance_rate": accepted / max(drafted, 1),
        "acceptance_histogram": histogram,
        "num_spec_steps": len(steps),
        "num_draft_tokens": drafted,
        "num_accepted_draft_tokens": accepted,
        "verifier_forwards": sum(loop.forwards for loop in loops),
        "new_tokens": total,
        "tokens_per_second": total / seconds,
        "seconds": seconds,
        "draft_seconds": sum(loop.source.draft_seconds for loop in loops),
        "search_seconds": sum(loop.source.search_seconds for loop in loops),
        "verify_seconds": sum(loop.verify_seconds for loop in loops),
    }
