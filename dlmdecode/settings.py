"""The arguments of a call that belong to no sampler: declared, checked and parsed in one place.

The signatures of `generate` and `stream`, the options of the commands, and the facts that a
sampler's factory may ask for are derived from `Settings`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
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
    conform,
    plain,
    require,
)

DTYPES = {"float32": torch.float32, "float64": torch.float64}
DEFAULT_SAMPLER = "threshold"
DEFAULT_BLOCK_LENGTH = 32
Seed = Annotated[int, Between(-(2**63), 2**63 - 1, name="a whole number of 64 bits")]

HINTS = {
    **dict.fromkeys(("max_tokens", "max_gen_toks", "num_tokens", "length", "n_predict"),
                    "the argument is max_new_tokens"),
    **dict.fromkeys(("max_length", "min_length", "min_new_tokens"),
                    "the canvas has max_new_tokens positions after the prompt"),
    **dict.fromkeys(("num_steps", "num_inference_steps", "timesteps"), "the argument is steps"),
    **dict.fromkeys(("do_sample", "greedy"), "temperature above 0 samples, 0 does not"),
    **dict.fromkeys(("num_beams", "beam_size"), "there is no beam search"),
    **dict.fromkeys(("num_return_sequences", "n", "best_of"),
                    "give the prompt as often as you want a text"),
    **dict.fromkeys(("use_cache", "past_key_values"), "the argument is cache"),
    **dict.fromkeys(("guidance_scale", "cfg_weight"),
                    "the argument is cfg_scale, which is guidance_scale − 1"),
    **dict.fromkeys(("repetition_penalty", "no_repeat_ngram_size", "length_penalty"),
                    "it has no meaning here: a text is not written from left to right"),
    **dict.fromkeys(("stop", "stop_strings", "until", "eos_token_id", "ignore_eos"),
                    "a text ends at the model's EOS; see the argument eos"),
    **dict.fromkeys(("generator", "random_state"), "the argument is seed"),
    **dict.fromkeys(("output_scores", "return_dict_in_generate"), "trace=True keeps every step"),
    **dict.fromkeys(("input_ids", "inputs", "messages"), "the argument is prompt"),
    "stream": "dlmdecode.stream yields the steps",
    "tokenizer": "it comes with the model; dlmdecode.wrap takes one",
}  # fmt: skip
"""What other libraries call it, and what it is here."""


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
        "none",
        "which keys and values are kept, as NAME[,OPTION=VALUE]…: none; prefix and dual "
        "(Fast-dLLM), approximations for full attention; block, exact, for block-causal models; or "
        "your own",
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
    confidence_dtype: Annotated[str, OneOf(tuple(DTYPES))] = argument(
        "float32", "float32 or float64, precision of the probabilities that rules see"
    )

    def __post_init__(self) -> None:
        for name, hint in hints().items():
            object.__setattr__(self, name, conform(name, vars(self)[name], hint))
        find_policy(self.cache)
        usable = self.temperature == 0 or self.temperature >= 1e-6
        require(usable, "temperature", self.temperature, "give 0, or at least 1e-6")
        length, block_length, steps = self.max_new_tokens, self.block_length, self.steps
        if isinstance(block_length, int):
            most = f"the text has max_new_tokens={length} positions: give at most these, or None"
            require(block_length <= length, "block_length", block_length, most)
        if steps is not None:
            most = f"a step writes one token or more: give at most max_new_tokens={length}"
            require(steps <= length, "steps", steps, most)
            blocks = -(-length // block_length) if isinstance(block_length, int) else 1
            least = f"give at least {blocks}, one for each block"
            require(steps >= blocks, "steps", steps, least)
        windowed = self.suffix is not None or self.suffix_tail == 0
        require(windowed, "suffix_tail", self.suffix_tail, "it goes with suffix: give that, too")

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
            value = plain(resolved.pop(alias, None))
            if value is None:
                continue
            other = plain(resolved.get(f.name))
            fix = f"{f.name}={other!r} says otherwise; give one"
            require(other is None or other == value, alias, value, fix)
            resolved[f.name] = value
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


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command one option for each setting; what is not given stays out of its arguments."""
    for setting in fields(Settings):
        names = (setting.name, *setting.metadata["aliases"])
        parser.add_argument(
            *(f"--{name.replace('_', '-')}" for name in names),
            dest=setting.name,
            type=partial(parse, setting.name),
            default=argparse.SUPPRESS,
            metavar="X",
            help=f"{setting.metadata['help']} ({str(setting.default).lower()})",
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command was given."""
    return {name: value for name, value in vars(arguments).items() if name in SETTINGS}


def parse(name: str, text: str) -> Any:
    """The value that `text` means for an option or a setting: settings that are words stay so."""
    return options.parse(text, hints().get(name))
