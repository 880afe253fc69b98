"""`generate` and `stream`: prompt in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode.caches import cache_policy, list_caches
from dlmdecode.canvas import Canvas
from dlmdecode.checks import closest, require
from dlmdecode.forward import Forward, Work
from dlmdecode.guidance import Guided
from dlmdecode.loop import denoise
from dlmdecode.models.base import Denoiser
from dlmdecode.models.loading import load
from dlmdecode.models.wrap import wrap
from dlmdecode.noise import streams
from dlmdecode.prompts import encode_prompts
from dlmdecode.registry import sampler as build_sampler
from dlmdecode.revisions import EndOfSequence
from dlmdecode.sampler import Sampler
from dlmdecode.trace import Step, Trace

ALIASES = {
    "gen_length": "max_new_tokens",
    "block_size": "block_length",
    "diffusion_steps": "steps",
}
DEFAULT_BLOCK_LENGTH = type("DefaultBlockLength", (int,), {})(32)  # tells 32 from "not given"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


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


def generate(
    model: Any,
    prompt: Any,
    sampler: Any = "threshold",
    *,
    max_new_tokens: int = 256,
    block_length: int | None = DEFAULT_BLOCK_LENGTH,
    steps: int | None = None,
    temperature: float = 0.0,
    cfg_scale: float = 0.0,
    cache: str = "none",
    eos: str = "stop",
    seed: int | None = None,
    streamer: Any = None,
    on_step: Callable[[Step], None] | None = None,
    trace: bool = False,
    confidence_dtype: str = "float32",
    attention_mask: Tensor | None = None,
    **sampler_options: Any,
) -> Generation:
    """Decode a diffusion language model.

    Args:
        model: what `load` or `wrap` give, a name or path for `load`, or a bare module whose
            `config` names its mask token.
        prompt: text, list of texts, chat messages or a list of those, LongTensor (P,) or (B, P)
            with `attention_mask`, list of 1-D LongTensors.
        sampler: a name, a composition "adablock+credit", a `Sampler`, or a list of these; see
            `list_samplers()`.
        max_new_tokens: length of the canvas after each prompt (alias `gen_length`).
        block_length: positions per block, None for the whole canvas (alias `block_size`).
        steps: denoising steps over all blocks together, for samplers with a schedule; others do
            not read it (alias `diffusion_steps`).
        temperature: 0 takes the best token; above, tokens are drawn by Gumbel noise that depends
            on `seed`, prompt and position only.
        cfg_scale: classifier-free guidance; 0 is off, otherwise a call has twice the rows.
        cache: "none", "prefix" or "dual" (Fast-dLLM); both caches are approximations.
        eos: "stop" ends a row once an EOS stands with nothing masked before it, and what follows
            becomes EOS; "ignore" decodes the whole canvas and keeps it as it is.
        seed: key of all randomness, 0 if None. The same seed gives a prompt the same text in any
            batch.
        streamer: transformers' protocol: `put(prompt)`, `put_draft(ids)` after each step if it has
            it, `put(ids)` as text becomes final from the left, `end()`. One prompt only.
        on_step: called with a `Step` after every step.
        trace: keep every `Step` in `out.trace`.
        confidence_dtype: "float32" or "float64", precision of the probabilities that rules see.
        attention_mask: (B, P) for a tensor of prompts, 1 for a prompt's tokens.
        **sampler_options: options of the sampler's components.

    Returns:
        A `Generation`.

    Most samplers work block by block; those whose papers use one block over the whole canvas
    ("dream", "entropy_bound", "ass") do so unless `block_length` is given.

    Raises:
        ValueError: bad argument; the message names it, its value and the fix. No forward was made.
        TypeError: unknown option, with the closest known name.
        FloatingPointError: the model gave NaN or infinite logits; names the step and the row.
    """
    given = dict(
        max_new_tokens=max_new_tokens,
        block_length=block_length,
        steps=steps,
        temperature=temperature,
        cfg_scale=cfg_scale,
        cache=cache,
        eos=eos,
        seed=seed,
        confidence_dtype=confidence_dtype,
        attention_mask=attention_mask,
    )
    run = Run.prepare(model, prompt, sampler, given | sampler_options)
    if streamer is not None:
        require(len(run.canvas) == 1, "streamer", streamer, "a streamer takes a single prompt")
        streamer = Streaming(streamer, run)
    steps_taken = Trace(run.sampler)
    for step in run:
        if trace:
            steps_taken.append(step)
        if on_step is not None:
            on_step(step)
        if streamer is not None:
            streamer.show(step)
    if streamer is not None:
        streamer.end()
    return run.result(steps_taken if trace else None)


def stream(model: Any, prompt: Any, sampler: Any = "threshold", **options: Any) -> Iterator[Step]:
    """Decode as `generate` does with the same arguments, yielding a `Step` after every step.

    Arguments are checked at the call, before the first step is asked for.
    """
    for name in ("streamer", "on_step", "trace"):
        require(name not in options, name, options.get(name), "it belongs to generate, not stream")
    return iter(Run.prepare(model, prompt, sampler, options))


def resolve_model(model: Any) -> Denoiser:
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return load(model)
    if isinstance(model, Denoiser):
        return model
    require(
        isinstance(model, torch.nn.Module) and hasattr(model, "config"),
        "model",
        type(model).__name__,
        "give a name, a model from load, or dlmdecode.wrap(module, mask_id=…, eos_ids=…)",
    )
    return wrap(model)


def resolve_aliases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under their canonical names; an alias that contradicts its name is an error."""
    resolved = dict(options)
    defaults = {"max_new_tokens": 256, "block_length": DEFAULT_BLOCK_LENGTH, "steps": None}
    for alias, name in ALIASES.items():
        if alias not in resolved:
            continue
        value = resolved.pop(alias)
        unset = resolved.get(name, defaults[name]) is defaults[name]
        agrees = unset or resolved[name] == value
        require(agrees, alias, value, f"{name}={resolved.get(name)!r} says otherwise; give one")
        resolved[name] = value
    return resolved


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
    def prepare(cls, model: Any, prompt: Any, sampler: Any, options: Mapping[str, Any]) -> Run:
        options = resolve_aliases(options)
        length = options.pop("max_new_tokens", 256)
        check_length(length)
        temperature = options.pop("temperature", 0.0)
        non_negative = isinstance(temperature, (int, float)) and 0 <= temperature < float("inf")
        require(non_negative, "temperature", temperature, "give a finite number, 0 or more")
        cfg_scale = options.pop("cfg_scale", 0.0)
        finite = isinstance(cfg_scale, (int, float)) and abs(cfg_scale) < float("inf")
        require(finite, "cfg_scale", cfg_scale, "give a finite number, 0 for no guidance")
        cache = one_of("cache", options.pop("cache", "none"), list_caches())
        eos = one_of("eos", options.pop("eos", "stop"), ("stop", "ignore"))
        dtype = DTYPES[
            one_of("confidence_dtype", options.pop("confidence_dtype", "float32"), DTYPES)
        ]
        seed = check_seed(options.pop("seed", None))
        attention_mask = options.pop("attention_mask", None)
        context = {"max_new_tokens": length, "temperature": temperature}
        context["block_length"] = options.pop("block_length", DEFAULT_BLOCK_LENGTH)
        check_block_length(context["block_length"])
        if context["block_length"] is DEFAULT_BLOCK_LENGTH:
            del context["block_length"]
        context["steps"] = check_steps(options.pop("steps", None))
        model = resolve_model(model)
        family = getattr(model, "family", None)
        recipe = build_sampler(sampler, family=family, context=context, **options).bind(model)
        if recipe.temperature == 0 and temperature > 0:
            recipe = replace(recipe, temperature=float(temperature))
        if eos == "stop":
            recipe = recipe.merge(Sampler(revisions=(EndOfSequence(),)))
        prompts = encode_prompts(prompt, attention_mask, model)
        check_context(prompts, length, model)
        noise = streams(prompts, seed)
        canvas = Canvas.of(prompts, length, model.mask_id, model.eos_ids, noise)
        for opening in recipe.openings:
            opening(canvas)
        forward = leaf = forward_of(model, recipe, cache)
        if cfg_scale != 0:
            forward = Guided(leaf, cfg_scale)
        return cls(
            model,
            recipe,
            canvas,
            forward,
            leaf.work,
            dtype,
            canvas.tokens.clone(),
            canvas.nfe.clone(),
        )

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


def forward_of(model: Denoiser, recipe: Sampler, cache: str) -> Forward:
    """The leaf forward: the recipe's own, or the cache policy's."""
    if recipe.evaluate is not None:
        return recipe.evaluate(model, cache)
    return cache_policy(model, cache)


def one_of(name: str, value: Any, known: Any) -> str:
    valid = isinstance(value, str) and value in known
    near = closest(value, known) if isinstance(value, str) else ""
    require(valid, name, value, f"give one of {', '.join(map(repr, known))}{near}")
    return value


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_length(length: Any) -> None:
    require(is_count(length), "max_new_tokens", length, "give a whole number, at least 1")


def check_block_length(length: Any) -> None:
    fits = length is None or is_count(length)
    require(fits, "block_length", length, "give a whole number, at least 1, or None for one block")


def check_steps(steps: Any) -> int | None:
    fits = steps is None or is_count(steps)
    require(fits, "steps", steps, "give a whole number, at least 1, or None for one token per step")
    return steps


def check_seed(seed: Any) -> int:
    whole = isinstance(seed, int) and not isinstance(seed, bool) and -(2**63) <= seed < 2**63
    require(seed is None or whole, "seed", seed, "give a 64-bit integer, or None for 0")
    return 0 if seed is None else seed


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


class Streaming:
    """Feeds a transformers streamer: drafts after each step, text once it is final."""

    def __init__(self, streamer: Any, run: Run):
        self.streamer = streamer
        self.start, self.stop = int(run.canvas.start[0]), int(run.canvas.stop[0])
        self.mask_id, self.shown = run.model.mask_id, self.start
        streamer.put(run.sequences[:, : self.start].cpu())

    def show(self, step: Step) -> None:
        row = step.sequences[0, : self.stop]
        if hasattr(self.streamer, "put_draft"):
            self.streamer.put_draft(value=row[None, self.start :].cpu())
        masks = (row == self.mask_id).nonzero()[:, 0]
        settled = int(masks[0]) if len(masks) else self.stop
        if settled > self.shown:
            self.streamer.put(row[self.shown : settled].cpu())
            self.shown = settled

    def end(self) -> None:
        self.streamer.end()
