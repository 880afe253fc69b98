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
from dlmdecode.composition import Composition
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
from dlmdecode.parts.blocks import check_blocks, check_suffix
from dlmdecode.parts.remasking import EndOfSequence
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.settings import DEFAULT_SAMPLER, Settings, takes_settings
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
    sampler: Any = DEFAULT_SAMPLER,
    *,
    streamer: Any = None,
    on_step: Callable[[Step], None] | None = None,
    trace: bool = False,
    attention_mask: Any = None,
    **options: Any,
) -> Generation:
    """Decode a diffusion language model.

    Numbers may be Python's, numpy's or torch's; True and False are none.

    Args:
        model: what `load` or `wrap` give, a name or path for `load`, or a bare module whose
            `config` names its mask token.
        prompt: text, chat messages, token ids (a tensor, an array or a list), a list of these, a
            padded batch (B, P) with `attention_mask`, or what a tokenizer returns.
        sampler: a name, a composition "adablock+credit", either with options behind commas
            ("threshold,threshold=0.5"), a `Sampler`, or a list of these; see `list_samplers()`.
        {settings}
        streamer: transformers' protocol: `put(prompt)`, `put_draft(ids)` after each step if it has
            it, `put(ids)` as text becomes final from the left up to its first EOS, `end()` in any
            case. One prompt only.
        on_step: called with a `Step` after every step.
        trace: keep every `Step` in `out.trace`.
        attention_mask: (B, P) for a batch of ids, 1 for a prompt's tokens.
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
    sampler: Any = DEFAULT_SAMPLER,
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
    configured = isinstance(model, torch.nn.Module) and hasattr(model, "config")  # transformers'
    fix = (
        "give a name, what load gives, a Denoiser, or dlmdecode.wrap(module, mask_id=…, eos_ids=…)"
    )
    require(configured, "model", type(model).__name__, fix)
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
        composition, options = Composition.read(sampler, options)
        settings, options = Settings.of(options)
        model = resolve_model(model)
        check_blocks(settings.block_length, settings.steps, settings.max_new_tokens, model)
        facts = settings.facts
        recipe = composition.build(model.family, facts, options, model.block_length)
        recipe = tempered(recipe.bind(model), settings.temperature)
        if settings.eos == "stop":
            recipe = recipe.merge(Sampler(revisions=(EndOfSequence(),)))
        check_suffix(settings.suffix, settings.suffix_tail, recipe, model)
        prompts = encode_prompts(prompt, mask, model)
        check_context(prompts, settings.max_new_tokens, model)
        noise = streams(prompts, settings.seed or 0)
        canvas = Canvas.of(
            prompts,
            settings.max_new_tokens,
            model.mask_id,
            model.eos_ids,
            noise,
            settings.suffix,
            settings.suffix_tail,
        )
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
    forward = cache_policy(model, settings.cache)
    wants = recipe.blocks is not None and recipe.blocks.slides
    follows = getattr(forward, "slides", False)
    fix = "the sampler's window slides: use a cache that follows it ('dsb', 'dcd'), or 'none'"
    require(follows or not wants or follows is None, "cache", settings.cache, fix)
    fix = "it follows a window that slides, as those of 'dsb' and 'dcd'"
    require(not follows or wants, "cache", settings.cache, fix)
    return forward
