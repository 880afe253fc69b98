"""`generate`, `stream` and `infill`: prompt in, text out."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode.call import Call, resolve_model
from dlmdecode.checks import Count, conform, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.trace import Step, Trace
from dlmdecode.flight import Flight
from dlmdecode.infilling import encode_pieces, with_lengths
from dlmdecode.prompts import encode_prompts
from dlmdecode.request import Request, shortest_first
from dlmdecode.result import Generation
from dlmdecode.settings import DEFAULT_SAMPLER, takes_settings
from dlmdecode.streaming import Streaming
from dlmdecode.trace.generation import GenerationFile


@takes_settings
def generate(
    model: Any,
    prompt: Any,
    sampler: Any = DEFAULT_SAMPLER,
    *,
    batch_size: int | None = None,
    streamer: Any = None,
    on_step: Callable[[Step], None] | None = None,
    trace: bool | str | os.PathLike[str] = False,
    attention_mask: Any = None,
    logits_processor: Any = None,
    infill: bool = False,
    **options: Any,
) -> Generation:
    """Decode a diffusion language model.

    Numbers may be Python's, numpy's or torch's; True and False are none.

    Args:
        model: what `load` or `wrap` give, a name or path for `load`, or a bare module whose
            `config` names its mask token.
        prompt: text, chat messages, token ids (a tensor, an array or a list), a list of these, a
            padded batch (B, P) with `attention_mask`, or what a tokenizer returns. An empty one is
            the tokenizer's BOS, or nothing where there is none.
        sampler: a name, a composition "adablock+credit", either with options behind commas
            ("threshold,threshold=0.5"), a `Sampler`, or a list of these; see `list_samplers()`.
            "auto" is the preset recorded for the model or its family, which `out.preset` names;
            what is given beside it goes before the preset's own options.
        {settings}
        batch_size: prompts in flight at a time, the shortest first: one that is finished makes room
            for the next. None decodes all together.
        streamer: transformers' protocol: `put(prompt)`, `put_draft(ids)` after each step if it has
            it, `put(ids)` as text becomes final from the left up to its first EOS, `end()` in any
            case. One prompt only.
        on_step: called with a `Step` after every step.
        trace: keep every `Step` in `out.trace`; a path appends the run to that file instead, as
            lines of JSON (docs/trace.md).
        attention_mask: (B, P) for a batch of ids, 1 for a prompt's tokens.
        logits_processor: a function `(input_ids (n, T), scores (n, V)) -> scores` or a list of
            these, such as transformers'. Its `input_ids` are all that stands in the row, without
            the masks between, the same for each of the n positions.
        infill: the prompts are token ids with mask tokens, which are written; see `infill`.
        **options: options of the sampler's components; of two components that share one, as
            `**{"credit.gamma": 0.3}`.

    Returns:
        A `Generation`.

    A row of a batch equals its single run as far as the model's logits do not depend on the shape
    of the batch. In float32 they differ in the last bits only; in bfloat16 by a tenth and more, so
    that a row can differ wherever two choices are nearly tied, with any sampler and any cache.

    Raises:
        ValueError: bad argument, or one that has no effect; the message names it, its value and the
            fix. No forward was made.
        TypeError: unknown option, with the closest known name.
        FloatingPointError: the model gave NaN or infinite logits; names the step and the row.
    """
    with Streaming(streamer) as shown:
        usable = on_step is None or callable(on_step)
        require(usable, "on_step", on_step, "give a function, or None")
        infill = conform("infill", infill, bool)
        fix = "it shows text that grows from the left, and gaps do not: use on_step"
        require(streamer is None or not infill, "streamer", streamer, fix)
        path = trace if isinstance(trace, (str, os.PathLike)) else None
        trace = path is None and conform("trace", trace, bool)
        how = (sampler, options, logits_processor, infill)
        run = Run(*begin(model, prompt, attention_mask, *how), batch_size)
        shown.begin(run.call, run.requests)
        steps_taken = Trace(run.call.sampler)
        looked_at = trace or path or on_step is not None or streamer is not None
        with GenerationFile(path, run.call, run.requests) as file:
            for step in run if looked_at else ():
                if trace:
                    steps_taken.append(step)
                if on_step is not None:
                    on_step(step)
                shown.show(step)
                file.step(step)
            while not looked_at and run.advance():
                pass
            out = run.result(steps_taken if trace else None)
            file.end(out)
    return out


@takes_settings
def stream(
    model: Any,
    prompt: Any,
    sampler: Any = DEFAULT_SAMPLER,
    *,
    batch_size: int | None = None,
    attention_mask: Any = None,
    logits_processor: Any = None,
    infill: bool = False,
    **options: Any,
) -> Iterator[Step]:
    """Decode as `generate` does with the same arguments, yielding a `Step` after every step.

    Arguments are checked at the call, before the first step is asked for.
    """
    for name in ("streamer", "on_step", "trace"):
        require(name not in options, name, options.get(name), "it belongs to generate, not stream")
    how = (sampler, options, logits_processor, conform("infill", infill, bool))
    return iter(Run(*begin(model, prompt, attention_mask, *how), batch_size))


def infill(model: Any, pieces: Any, sampler: Any = DEFAULT_SAMPLER, **options: Any) -> Generation:
    """Write what is missing in a text: `infill("tiny", ["def area(r):\n    return ", 12, "\n"])`.

    Given text is never changed, and is seen by the model from the first step on, on both sides of a
    gap. Blocks, steps and windows count what is to be written only. An end token ends its own gap:
    what is behind it in the gap becomes EOS, and is left out of the texts.

    Args:
        model, sampler: as for `generate`.
        pieces: texts and lengths of gaps in tokens, in any order, or a list of such lists. Ids are
            given as 1-D tensors. Pieces that touch are one. No chat template is applied.
        **options: all others of `generate`, but for `max_new_tokens` and what needs one prompt and
            one end (`length`, `stop_strings`, `suffix_tail`, `negative_prompt`, a streamer).

    Returns:
        A `Generation`: `texts` are whole, `gaps` has the text of each gap of each row.

    Raises:
        ValueError, TypeError, FloatingPointError: as `generate`; ValueError, too, for models whose
            attention is causal between blocks, and samplers that hide the text behind a gap.
    """
    for name in ("infill", "attention_mask"):
        require(name not in options, name, options.get(name), "leave it out")
    model = resolve_model(model)
    return generate(model, encode_pieces(pieces, model), sampler, infill=True, **options)


def begin(
    model: Any,
    prompt: Any,
    mask: Any,
    sampler: Any,
    options: dict[str, Any],
    processors: Any,
    infill: bool,
) -> tuple[Call, list[Request]]:
    """What a run starts from."""
    if not infill:
        call = Call.of(model, sampler, options, processors)
        return call, call.requests(prompt, mask)
    model = resolve_model(model)
    rows = encode_prompts(prompt, mask, model, infill=True)
    call = Call.of(model, sampler, with_lengths(options, rows, model), processors)
    return call, call.infills(rows)


class Run:
    """One call of `generate`: everything checked and built, nothing forwarded yet."""

    def __init__(self, call: Call, requests: list[Request], batch_size: int | None):
        self.call, self.requests = call, requests
        places = conform("batch_size", batch_size, Count | None)
        most = len(self.requests)
        places = min(places or most, most)
        self.waiting = deque(shortest_first(self.requests) if places < most else self.requests)
        self.flight = Flight(self.call, places, self.next)

    def next(self, most: int) -> list[Request]:
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def advance(self) -> bool:
        """Take a step; whether there is another one. Raises the error of a row."""
        for request in self.flight.advance():
            request.result()
        return bool(self.waiting or self.flight.rows)

    def __iter__(self) -> Iterator[Step]:
        """Every step of the whole batch, as it is taken."""
        sequences = self.call.canvas(self.requests).tokens
        steps, number = list[Step](), itertools.count(1)

        def see(canvas: Canvas, before: Tensor, requests: list[Request]) -> None:
            nonlocal sequences
            rows = torch.tensor([request.index for request in requests], device=before.device)
            canvas = replace(canvas.resize(sequences.shape[1]), row=rows)
            whole, sequences = sequences, sequences.index_copy(0, rows, canvas.tokens)
            steps.append(Step.of(next(number), canvas, whole, sequences, self.flight.cost))

        self.flight.watch = see
        goes_on = True
        while goes_on:
            goes_on = self.advance()
            yield steps.pop()

    def result(self, trace: Trace | None) -> Generation:
        """Of all rows, in the caller's order."""
        rows = [request.result() for request in self.requests]
        joined = Generation.join(self.call.model, rows, self.flight.cost)
        return replace(joined, trace=trace, preset=self.call.preset)
