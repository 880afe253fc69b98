"""`generate` and `stream`: prompt in, text out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode.caches import cache_policy
from dlmdecode.checks import conform, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Work
from dlmdecode.decoding.guidance import Guided
from dlmdecode.decoding.loop import denoise
from dlmdecode.decoding.noise import streams
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.decoding.trace import Step, Trace
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.wrap import as_denoiser, wrap
from dlmdecode.parts.blocks import check_blocks
from dlmdecode.parts.remasking import EndOfSequence
from dlmdecode.prompts import encode_prompts
from dlmdecode.registry import sampler as build_sampler
from dlmdecode.settings import Settings, takes_settings
from dlmdecode.streaming import Streaming


@dataclass
class Generation:
    """What `generate` returns.

    Attributes:
        sequences: (B, P+G) int64, each row prompt then text, right-padded with EOS.
        texts: the generated text of each row without prompt and special tokens; None without a
            tokenizer.
        nfe: forwards each row took part in (number of function evaluations).
        new_tokens: tokens of each row's text, up to but without its first EOS.
        stats: totals: nfe (model calls), forward_rows and forward_positions (rows and token
            positions over all calls), new_tokens, seconds, tokens_per_forward (new tokens over the
            sum of the rows' nfe), tokens_per_second.
        trace: what was committed when; None unless asked for.
        prompt_lengths: tokens of each prompt.
    """

    sequences: Tensor
    texts: list[str] | None
    nfe: list[int]
    new_tokens: list[int]
    stats: dict[str, float]
    trace: Trace | None = None
    prompt_lengths: list[int] = field(default_factory=list)


@takes_settings
def generate(
    model: Any,
    prompt: Any,
    sampler: Any = "threshold",
    *,
    streamer: Any = None,
    on_step: Callable[[Step], None] | None = None,
    trace: bool = False,
    attention_mask: Any = None,
    **options: Any,
) -> Generation:
    """Decode a diffusion language model.

    Numbers may be Python's, numpy's or torch's; True and False are none. `dlmdecode.settings` has
    the arguments from `max_new_tokens` to `confidence_dtype`.

    Args:
        model: what `load` or `wrap` give, a name or path for `load`, or a bare module whose
            `config` names its mask token.
        prompt: text, chat messages, token ids (a tensor, an array or a list), a list of these, a
            padded batch (B, P) with `attention_mask`, or what a tokenizer returns.
        sampler: a name, a composition "adablock+credit", a `Sampler`, or a list of these; see
            `list_samplers()`.
        max_new_tokens: length of the canvas after each prompt (alias `gen_length`).
        block_length: positions per block, None for the whole canvas (alias `block_size`); the last
            one may be shorter. "auto" is the model's own where its attention is causal between
            blocks; else what the sampler's paper has: one block over the whole canvas for "dream"
            and "entropy_bound", 32 positions for others. Blocks of a block-causal model are counted
            from position 0, so that the end of a prompt may share the first one.
        steps: denoising steps over all blocks together, a block's share being that of its
            positions, for samplers with a schedule; None is a step a token (alias
            `diffusion_steps`).
        temperature: 0 takes the best token; above, tokens are drawn by Gumbel noise that depends
            on `seed`, prompt and position only.
        cfg_scale: classifier-free guidance; 0 is off, otherwise a call has twice the rows.
        cache: "none"; "prefix" or "dual" (Fast-dLLM), approximations for full attention; "block",
            exact, for block-causal models.
        eos: "stop" ends a row once an EOS stands with nothing masked before it, and what follows
            becomes EOS; "ignore" decodes the whole canvas and keeps it as it is.
        seed: key of all randomness, 0 if None. The same seed gives a prompt the same text in any
            batch.
        streamer: transformers' protocol: `put(prompt)`, `put_draft(ids)` after each step if it has
            it, `put(ids)` as text becomes final from the left up to its first EOS, `end()` in any
            case. One prompt only.
        on_step: called with a `Step` after every step.
        trace: keep every `Step` in `out.trace`.
        confidence_dtype: "float32" or "float64", precision of the probabilities that rules see.
        attention_mask: (B, P) for a batch of ids, 1 for a prompt's tokens.
        **options: options of the sampler's components.

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
        trace = conform("trace", trace, bool)
        run = Run.prepare(model, prompt, sampler, attention_mask, options)
        shown.begin(run.canvas, run.sampler)
        steps_taken = Trace(run.sampler)
        for step in run:
            if trace:
                steps_taken.append(step)
            if on_step is not None:
                on_step(step)
            shown.show(step)
    return run.result(steps_taken if trace else None)


@takes_settings
def stream(
    model: Any,
    prompt: Any,
    sampler: Any = "threshold",
    *,
    attention_mask: Any = None,
    **options: Any,
) -> Iterator[Step]:
    """Decode as `generate` does with the same arguments, yielding a `Step` after every step.

    Arguments are checked at the call, before the first step is asked for.
    """
    for name in ("streamer", "on_step", "trace"):
        require(name not in options, name, options.get(name), "it belongs to generate, not stream")
    return iter(Run.prepare(model, prompt, sampler, attention_mask, options))


def resolve_model(model: Any) -> Denoiser:
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    found = as_denoiser(model)
    if found is not None:
        return found
    require(
        isinstance(model, torch.nn.Module) and hasattr(model, "config"),
        "model",
        type(model).__name__,
        "give a name, a model from load, a Denoiser, or dlmdecode.wrap(module, mask_id=…, "
        "eos_ids=…)",
    )
    return wrap(model)


@dataclass
class Run:
    """One call of `generate`: everything checked and built, nothing forwarded yet."""

    model: Denoiser
    sampler: Sampler
    canvas: Canvas
    forward: Forward
    work: Work
    dtype: torch.dtype
    sequences: Tensor
    nfe: Tensor
    seconds: float = 0.0

    @classmethod
    def prepare(
        cls, model: Any, prompt: Any, sampler: Any, mask: Any, options: Mapping[str, Any]
    ) -> Run:
        settings, options = Settings.of(options)
        model = resolve_model(model)
        check_blocks(settings.block_length, settings.steps, settings.max_new_tokens, model)
        own, facts = model.block_length, settings.facts
        recipe = build_sampler(
            sampler, family=model.family, context=facts, own_block=own, **options
        )
        recipe = tempered(recipe.bind(model), settings.temperature)
        if settings.eos == "stop":
            recipe = recipe.merge(Sampler(revisions=(EndOfSequence(),)))
        prompts = encode_prompts(prompt, mask, model)
        check_context(prompts, settings.max_new_tokens, model)
        noise = streams(prompts, settings.seed or 0)
        canvas = Canvas.of(prompts, settings.max_new_tokens, model.mask_id, model.eos_ids, noise)
        for opening in recipe.openings:
            opening(canvas)
        forward = leaf = forward_of(model, recipe, settings)
        if settings.cfg_scale != 0:
            forward = Guided(leaf, settings.cfg_scale)
        tokens, nfe = canvas.tokens.clone(), canvas.nfe.clone()
        return cls(model, recipe, canvas, forward, leaf.work, settings.dtype, tokens, nfe)

    def __iter__(self) -> Iterator[Step]:
        began = time.perf_counter()
        number, before = 0, self.canvas.tokens
        rows = denoise(self.forward, self.canvas, self.sampler, self.dtype)
        for number, canvas in enumerate(rows, 1):
            before = self.sequences[canvas.row]
            self.sequences[canvas.row] = canvas.tokens
            self.nfe[canvas.row] = canvas.nfe
            self.seconds = time.perf_counter() - began
            yield Step.of(number, canvas, before, self.sequences)

    def result(self, trace: Trace | None) -> Generation:
        start, stop = self.canvas.start.tolist(), self.canvas.stop.tolist()
        spans = [row[a:b] for row, a, b in zip(self.sequences, start, stop, strict=True)]
        ends = [first_eos(span, self.model.eos_ids) for span in spans]
        texts = None
        if self.model.tokenizer is not None:
            texts = [
                self.model.tokenizer.decode(span[:end], skip_special_tokens=True)
                for span, end in zip(spans, ends, strict=True)
            ]
        nfe, total = self.nfe.tolist(), sum(ends)
        stats = {
            "nfe": self.work.calls,
            "forward_rows": self.work.rows,
            "forward_positions": self.work.positions,
            "new_tokens": total,
            "seconds": self.seconds,
            "tokens_per_forward": total / max(sum(nfe), 1),
            "tokens_per_second": total / self.seconds if self.seconds else 0.0,
        }
        return Generation(self.sequences, texts, nfe, ends, stats, trace, start)


def first_eos(ids: Tensor, eos_ids: tuple[int, ...]) -> int:
    """Tokens before the first EOS of `ids` (n,)."""
    where = torch.isin(ids, torch.tensor(eos_ids, device=ids.device)).nonzero()
    return int(where[0]) if len(where) else len(ids)


def tempered(recipe: Sampler, temperature: float) -> Sampler:
    """The recipe at the temperature of the call, unless it has read that already."""
    return replace(recipe, temperature=recipe.temperature or temperature)


def forward_of(model: Denoiser, recipe: Sampler, settings: Settings) -> Forward:
    """The leaf forward: the recipe's own, or the cache policy's."""
    if recipe.evaluate is not None:
        return recipe.evaluate(model, settings)
    return cache_policy(model, settings.cache)


def check_context(prompts: list[Tensor], length: int, model: Denoiser) -> None:
    longest = max(map(len, prompts))
    limit = model.max_length
    require(
        limit is None or longest + length <= limit,
        "max_new_tokens",
        length,
        f"the longest prompt has {longest} tokens and the model addresses {limit} positions; "
        f"give at most {max((limit or 0) - longest, 0)}",
    )
