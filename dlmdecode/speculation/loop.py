"""`speculate`: draft, search, verify, until the verifier's text is written.

The verifier's own `generate` prepares everything (`custom_generate`): its generation config, logits
processors, stopping criteria and cache are those of plain decoding, so all that they mean holds
here, and what they refuse is refused. Only the loop that follows is ours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import Count, NonNegative, check_temperature, conform, require
from dlmdecode.decoding.noise import streams
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.settings import Seed
from dlmdecode.speculation.drafters import Drafter
from dlmdecode.speculation.result import Speculation, Step
from dlmdecode.speculation.row import Row, write
from dlmdecode.speculation.source import Source, resolve_source
from dlmdecode.speculation.streaming import Streaming
from dlmdecode.speculation.verifier.acceptance import TypicalAcceptance, resolve_acceptance
from dlmdecode.speculation.verifier.cached_model import takes_batches
from dlmdecode.speculation.verifier.facts import causal_model
from dlmdecode.speculation.verifier.options import check_options, text_options
from dlmdecode.speculation.verifier.verifier import pad, resolve_verifier
from dlmdecode.trace.verifications import SpeculationFile

MASK = 2**26  # numbers in the mask of a first forward over several prompts
OWN = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")  # may remember a text


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
    batch_size: int | None = None,
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
        batch_size: rows that one forward of the verifier is over; None takes all where it can.
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

    Rows do not depend on each other. They are decoded one after the other where the drafter learns
    from one text for the next, where logits processors or stopping criteria of one's own may, and
    where the verifier takes no mask and positions. Equality with plain decoding is exact where the
    verifier's logits do not depend on how many positions and rows one forward computes; in bfloat16
    they do in the last bits, and near-ties may fall otherwise.

    Raises:
        FileNotFoundError: a name that is neither a drafter's nor a model's.
        ValueError: bad argument, one without effect, or one, given or in the generation_config,
            that asks for other decoding than token by token, or for a cache that cannot be
            rewound; the message names it, its value and the fix.
        TypeError: unknown option, with the closest known name.
    """
    with Streaming(streamer, on_step) as shown:  # whose streamer is ended in any case
        temperature = conform("temperature", temperature, NonNegative)
        check_temperature(temperature)
        key = conform("seed", 0 if seed is None else seed, Seed)
        path = isinstance(trace, (str, os.PathLike, NoneType))
        require(
            path, "trace", trace, "give a path; every step is in the result's trace in any case"
        )
        verifier = resolve_verifier(verifier, tokenizer)
        config = verifier.model.generation_config
        options = check_options(options, temperature, config, verifier.vocab_size)
        prompts = encode_prompts(prompt, attention_mask, verifier)
        max_new_tokens = conform("max_new_tokens", max_new_tokens, Count)
        check_context(prompts, max_new_tokens, verifier)
        shown.check(prompts)
        drafting = (path_search, proxy, draft_length, draft_steps, vocabulary)
        source = resolve_source(drafter, verifier, *drafting)
        why = apart(source.drafter, verifier.model, options)
        size = group_size(batch_size, prompts, why)
        rule = resolve_acceptance(acceptance, source.lengths.longest)
        options = text_options(options, config, verifier.tokenizer) | {"do_sample": temperature > 0}
        if temperature > 0:
            options["temperature"] = temperature
        began = time.perf_counter()
        generate = partial(verifier.model.generate, max_new_tokens=max_new_tokens, **options)
        keys = list(streams(prompts, key)) if temperature > 0 else [None] * len(prompts)
        named = {
            "drafter": type(source.drafter).__name__,
            "verifier": type(verifier.model).__name__,
        }
        with SpeculationFile(trace, verifier.tokenizer, prompts, named, shown.step) as file:
            shown.begin(prompts)
            rows, forwards = written(source, generate, prompts, keys, size, rule, file.step)
            stats = summary(rows, forwards, time.perf_counter() - began)
            stats["lossless"] = rule is None
            texts = [torch.tensor(row.text, device=verifier.device) for row in rows]
            out = Speculation(
                pad(texts, verifier, options),
                verifier.decode(texts, prompts),
                [len(text) - len(ids) for text, ids in zip(texts, prompts, strict=True)],
                stats,
                [step for row in rows for step in row.steps],
            )
            file.end(out)
        return out


def written(
    source: Source,
    generate: Callable[..., Any],
    prompts: list[Tensor],
    keys: Sequence[Tensor | None],
    size: int,
    rule: TypicalAcceptance | None,
    on_step: Callable[[Step], None],
) -> tuple[list[Row], int]:
    """The rows of all prompts, `size` of them written together, and the verifier's forwards; its
    `generate` prepares what shapes a row's text."""
    rows: list[Row] = []
    forwards = 0
    for first in range(0, len(prompts), size):
        for number, ids in enumerate(prompts[first : first + size], first):
            row = Row(number, source.start(copied=size > 1), keys[number], rule, on_step)
            mask = torch.ones_like(ids)[None]
            generate(ids[None], attention_mask=mask, custom_generate=row.prepare)
            rows.append(row)
        forwards += write(rows[first:])
    return rows, forwards


def apart(drafter: Drafter, model: Any, options: Mapping[str, Any]) -> str:
    """Why rows cannot be written at the same time; "" if they can."""
    if not drafter.copyable:
        return f"{type(drafter).__name__} drafts for one text at a time"
    own = next((name for name in OWN if options.get(name)), None)
    if own is not None:
        return f"{own} of your own may remember one text at a time"
    inner = causal_model(model)
    many = takes_batches(inner)
    return "" if many else f"{type(inner).__name__} cannot compute rows of different lengths"


def group_size(batch_size: int | None, prompts: list[Tensor], why: str) -> int:
    """How many rows are verified together, given why they cannot be."""
    asked: int | None = conform("batch_size", batch_size, Count | None)
    require(asked in (None, 1) or not why, "batch_size", batch_size, f"{why}; leave it out")
    most = 1 if why else max(1, MASK // max(len(ids) for ids in prompts) ** 2)
    return min(most, len(prompts), asked or len(prompts))


def summary(rows: list[Row], forwards: int, seconds: float) -> dict[str, Any]:
    """The statistics of `Speculation.stats`; `forwards` are the verifier's."""
    steps = [step for row in rows for step in row.steps if step.draft]
    drafted, accepted = sum(len(s.draft) for s in steps), sum(s.accepted for s in steps)
    histogram = [0] * (max((s.accepted for s in steps), default=-1) + 1)
    for step in steps:
        histogram[step.accepted] += 1
    mean = accepted / max(len(steps), 1)
    total = sum(len(step.written) for row in rows for step in row.steps)
    return {
        "mean_accepted_tokens": mean,
        "mean_acceptance_length": mean + 1,
        "draft_acceptance_rate": accepted / max(drafted, 1),
        "acceptance_histogram": histogram,
        "num_spec_steps": len(steps),
        "num_draft_tokens": drafted,
        "num_accepted_draft_tokens": accepted,
        "verifier_forwards": forwards,
        "drafter_forwards": sum(row.source.forwards for row in rows),
        "new_tokens": total,
        "tokens_per_second": total / seconds,
        "seconds": seconds,
        "draft_seconds": sum(row.source.draft_seconds for row in rows),
        "search_seconds": sum(row.source.search_seconds for row in rows),
        "verify_seconds": sum(row.verify_seconds for row in rows),
    }
