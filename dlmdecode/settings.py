"""The arguments of a call that belong to no sampler: declared, checked and parsed in one place.

The signatures of `generate` and `stream`, the options of the commands, and the facts that a
sampler's factory may ask for are derived from `Settings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from textwrap import fill
from typing import Annotated, Any, get_type_hints

import torch

from dlmdecode import options
from dlmdecode.caches.registry import Policy, find_policy
from dlmdecode.checks import (
    Between,
    Count,
    Natural,
    NonNegative,
    OneOf,
    Penalty,
    PositiveProbability,
    Probability,
    check_temperature,
    conform,
    fits,
    plain,
    require,
)
from dlmdecode.lengths import LENGTHS

DTYPES = {"float32": torch.float32, "float64": torch.float64}
DEFAULT_SAMPLER = "threshold"
DEFAULT_BLOCK_LENGTH = 32
Seed = Annotated[int, Between(-(2**63), 2**63 - 1, name="a whole number of 64 bits")]


def argument(default: Any, help: str, *aliases: str) -> Any:
    """A field with its line of help and its other names."""
    return field(default=default, metadata={"help": help, "aliases": aliases})


@dataclass(frozen=True)
class Settings:
    """A call's arguments that belong to no sampler.

    Raises `ValueError` for a value that is none of its annotation, or that can have no effect
    beside the others.
    """

    max_new_tokens: Count = argument(256, "length of the canvas after each prompt", "gen_length")
    block_length: Count | Annotated[str, OneOf(("auto",))] | None = argument(
        "auto",
        "positions per block, the last one may be shorter; none is one block over the whole "
        "canvas, auto the model's own where its attention is causal between blocks, else what the "
        f"sampler's paper has, else {DEFAULT_BLOCK_LENGTH} positions",
        "block_size",
    )
    steps: Count | None = argument(
        None,
        "denoising steps over all blocks together, a block's share being that of its positions, "
        "for samplers with a schedule; none is a step a token",
        "diffusion_steps",
    )
    temperature: NonNegative = argument(
        0.0,
        "0 takes the best token; above, tokens are drawn by Gumbel noise that depends on seed, "
        "prompt and position only",
    )
    cfg_scale: NonNegative = argument(
        0.0, "classifier-free guidance; 0 is off, otherwise a call has twice the rows", "cfg"
    )
    cache: str | Policy = argument(
        "auto",
        "which keys and values are kept, as NAME[,OPTION=VALUE]…: none; prefix and dual "
        "(Fast-dLLM), approximations for full attention; block, exact, for block-causal models; "
        "auto, which is block for these and none for others; or your own",
    )
    suffix: Natural | None = argument(
        None,
        "masks behind the open block that the model sees (a suffix window): 0 writes block after "
        "block as if nothing followed, so that max_new_tokens costs nothing in advance; none is "
        "the whole canvas",
        "suffix_window",
    )
    suffix_tail: Natural = argument(
        0, "positions at the end of the text that it sees beside a suffix window; Streaming-dLLM: 1"
    )
    eos: Annotated[str, OneOf(("stop", "ignore"))] = argument(
        "stop",
        "stop ends a row once an EOS stands with nothing masked before it, and what follows "
        "becomes EOS; ignore decodes the whole canvas and keeps it as it is",
    )
    seed: Seed | None = argument(
        None,
        "key of all randomness, 0 if none; the same seed gives a prompt the same text in any batch",
    )
    top_p: PositiveProbability | None = argument(
        None, "draw from the smallest set of best tokens whose probability reaches this"
    )
    top_k: Count | None = argument(None, "draw from this many best tokens")
    min_p: Probability | None = argument(
        None, "draw from the tokens at least this probable, relative to the best one"
    )
    repetition_penalty: Penalty | None = argument(
        None,
        "logits of tokens that stand in the row, prompt included, are divided by this where they "
        "are positive and multiplied where they are negative; EOS goes free",
    )
    suppress_tokens: int | tuple[int, ...] | None = argument(None, "ids that are never written")
    min_tokens_per_step: Count = argument(
        1, "a step commits this many tokens at least, the most confident ones, or all that are left"
    )
    stop_strings: str | tuple[str, ...] | None = argument(
        None,
        "a text ends before the first of these strings, and its row once one stands with nothing "
        "masked before it",
    )
    num_return_sequences: Count = argument(
        1, "texts of each prompt, one after the other, each with noise of its own"
    )
    negative_prompt: str | Any | None = argument(
        None,
        "what guidance leads away from, in place of the masked prompt: one for all rows, or a list "
        "with one for each",
    )
    length: str | None = argument(
        None,
        "how a text finds its length, at most max_new_tokens, as NAME[,OPTION=VALUE]…: rho_eos "
        "(grows and shrinks), daedal (grows)",
    )
    confidence_dtype: Annotated[str, OneOf(tuple(DTYPES))] = argument(
        "float32", "float32 or float64, precision of the probabilities that rules see"
    )

    def __post_init__(self) -> None:
        for name, hint in hints().items():
            given = vars(self)[name]
            if given is not getattr(Settings, name):  # defaults are what their annotations want
                object.__setattr__(self, name, conform(name, given, hint))
        find_policy(self.cache)
        self.check_length()
        check_temperature(self.temperature)
        self.check_words()
        length, block_length, steps = self.max_new_tokens, self.block_length, self.steps
        most = f"the text has max_new_tokens={length} positions: give at most these, or None"
        for name in ("block_length", "suffix"):
            value = vars(self)[name]
            require(not isinstance(value, int) or value <= length, name, value, most)
        if steps is not None:
            most = f"a step writes one token or more: give at most max_new_tokens={length}"
            require(steps <= length, "steps", steps, most)
            blocks = -(-length // block_length) if isinstance(block_length, int) else 1
            least = f"give at least {blocks}, one for each block"
            require(steps >= blocks, "steps", steps, least)
        windowed = self.suffix is not None or self.suffix_tail == 0
        require(windowed, "suffix_tail", self.suffix_tail, "it goes with suffix: give that, too")

    def check_length(self) -> None:
        """Whoever finds a length needs to see the whole text, and no schedule to fit it."""
        if self.length is not None:
            LENGTHS.parse(self.length)
            fix = "it reads all of the text at every step: leave the cache out"
            require(self.cache in ("auto", "none"), "length", self.length, fix)
            fix = "steps are spread over a length that is known: leave them out"
            require(self.steps is None, "length", self.length, fix)
            fix = "it looks for the text's end, which a suffix window hides: leave suffix out"
            require(self.suffix is None, "length", self.length, fix)

    def check_words(self) -> None:
        """Stop strings and suppressed tokens as tuples; a negative prompt has its guidance."""
        for name, kind, fix in (
            ("stop_strings", str, "give a text or several, none of them empty"),
            ("suppress_tokens", int, "give token ids"),
        ):
            given = vars(self)[name]
            if given is None:
                continue
            several = isinstance(given, Iterable) and not isinstance(given, (str, bytes))
            values = tuple(map(plain, given if several else [given]))
            usable = all(fits(value, kind) and value != "" for value in values)
            require(usable and len(values) > 0, name, given, fix)
            object.__setattr__(self, name, values)
        guided = self.negative_prompt is None or self.cfg_scale > 0
        require(guided, "negative_prompt", self.negative_prompt, "it goes with cfg_scale above 0")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
        """The settings among `options`, and the others: what the sampler is given."""
        rest = resolve_aliases(options)
        return cls(**{name: rest.pop(name) for name in SETTINGS if name in rest}), rest

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.confidence_dtype]

    @property
    def facts(self) -> dict[str, Any]:
        """What a sampler's factory may ask for; a block length only where one was given."""
        known = dict(vars(self))
        if self.block_length == "auto":
            del known["block_length"]
        return known


SETTINGS = tuple(f.name for f in fields(Settings))


def resolve_aliases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their names; `ValueError` where an alias says something else than its name."""
    resolved = dict(options)
    for f in fields(Settings):
        for alias in f.metadata["aliases"]:
            if alias not in resolved:
                continue
            value = plain(resolved.pop(alias))
            other = plain(resolved.setdefault(f.name, value))
            fix = f"{f.name}={other!r} says otherwise; give one"
            require(other == value, alias, value, fix)
    return resolved


@cache
def hints() -> dict[str, Any]:
    """The annotation of each setting."""
    return get_type_hints(Settings, include_extras=True)


def takes_settings(call: Callable[..., Any]) -> Callable[..., Any]:
    """Show the settings in the signature of a function that takes them as `**options`.

    They take the place of the line `{settings}` of its docstring.
    """
    signature = inspect.signature(call)
    *own, options = signature.parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    settings = [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
        for f in fields(Settings)
    ]
    call.__doc__ = (call.__doc__ or "").replace(f"{' ' * 8}{{settings}}", documentation())
    call.__signature__ = signature.replace(parameters=[*own, *settings, options])  # type: ignore[attr-defined]
    return call


def documentation() -> str:
    """A line or more on each setting, as they stand in a docstring."""
    lines = []
    for f in fields(Settings):
        aliases = "".join(f" (alias `{alias}`)" for alias in f.metadata["aliases"])
        text = f"{f.name}: {f.metadata['help']}{aliases}."
        lines.append(
            fill(
                text,
                100,
                initial_indent=" " * 8,
                subsequent_indent=" " * 12,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def parse(name: str, text: str) -> Any:
    """The value that `text` means for an option or a setting: settings that are words stay so."""
    return options.parse(text, hints().get(name))
