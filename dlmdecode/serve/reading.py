"""What a request's body asks for, in the words of `generate`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from dlmdecode.checks import Count, conform, require
from dlmdecode.composition import Composition
from dlmdecode.composition import read as split_options
from dlmdecode.registry import Registered
from dlmdecode.serve.errors import Refused
from dlmdecode.serve.limits import Limits
from dlmdecode.settings import DEFAULT_SAMPLER, Settings, resolve_aliases

LENGTHS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "parallel_tool_calls",
)  # fmt: skip
NEUTRAL: dict[str, Any] = {  # fields of OpenAI's that can only say what is done anyway
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "best_of": 1,
    "echo": False,
    "tools": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
}
OWN = ("batch_size", "logits_processor", "num_return_sequences")  # the server's, or n here
MOST_STOPS = 16
WRONG = re.compile(r"unknown option '([^']+)'|unknown (sampler) |([a-z_.]+)(?:=|, message )")


@dataclass(frozen=True)
class Served:
    """What a server offers: its model's name, and what a request need not say."""

    name: str
    has_template: bool = False
    sampler: str = DEFAULT_SAMPLER
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True)
class Wanted:
    """A request that can be decoded, as far as its body tells."""

    prompts: list[Any]  # each as `generate` takes one
    sampler: str
    options: dict[str, Any]  # settings and the sampler's options
    length: int
    seed: int | None
    num_texts: int  # of each prompt
    stops: tuple[str, ...]
    stream: bool
    with_usage: bool  # at the end of a stream
    canvas: bool  # the canvas of every step, too
    trace: bool  # the lines of a trace, too
    names: Mapping[str, str]  # what the body calls arguments that have other names here


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object of a body."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")

    try:
        body = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused('the body is no JSON object: send {"model": …}')
    return body


def refused(error: Exception, names: Mapping[str, str] = {}) -> Refused:  # noqa: B006
    """An error of the library's, which begins with the argument that is wrong."""
    named = WRONG.match(str(error))
    name = named and next(filter(None, named.groups()))
    return Refused(str(error), name and names.get(name, name))


def read(body: Mapping[str, Any], served: Served, *, chat: bool) -> Wanted:
    """Raises `Refused` for what is wrong, unknown, or beyond the limits."""
    rest = {name: value for name, value in body.items() if value is not None}
    check_model(rest.pop("model", None), served.name)
    try:
        sampler, rest = sampler_and_options(rest, served)
        check_neutral(rest)
        stream = conform("stream", rest.pop("stream", False), bool)
        with_usage = usage_wanted(rest.pop("stream_options", None), stream)
        looks = {name: conform(name, rest.pop(name, False), bool) for name in ("canvas", "trace")}
        for name, asked in looks.items():
            require(stream or not asked, name, asked, "it comes in a stream: send stream, too")
        name = "messages" if chat else "prompt"
        require(name in rest, name, None, "send it")
        given = rest.pop(name)
        prompts = conversation(given, served) if chat else several(given)
        num_texts = conform("n", rest.pop("n", 1), Count)
        most = served.limits.choices
        fix = f"n times the prompts are at most {most}"
        require(num_texts * len(prompts) <= most, "n", num_texts, fix)
        own = dict(served.options)
        stops = tuple(own.pop("stop_strings", ()))
        stops = stop_strings(rest.pop("stop", None), rest.pop("stop_strings", None)) or stops
        default = own.pop("max_new_tokens", min(Settings.max_new_tokens, served.limits.tokens))
        own_names = {"prompt": name, "max_new_tokens": next(filter(rest.get, LENGTHS), LENGTHS[0])}
        length = text_length(rest, default, served.limits)
        seed = rest.pop("seed", own.pop("seed", None))
        own = {name: value for name, value in own.items() if has_meaning(name, value, rest, length)}
        options = {name: listed(value) for name, value in {**own, **rest}.items()}
        check_options(sampler, options)
    except (ValueError, TypeError) as error:
        raise refused(error) from None
    return Wanted(
        prompts,
        sampler,
        options,
        length,
        seed,
        num_texts,
        stops,
        stream,
        with_usage,
        **looks,
        names=own_names,
    )


def sampler_and_options(rest: Mapping[str, Any], served: Served) -> tuple[str, dict[str, Any]]:
    """The sampler's names alone, and all other fields with the options that its text has."""
    given = dict(rest)
    served_one = "sampler" not in given
    text = conform("sampler", given.pop("sampler", served.sampler), str)
    names, written = split_options(text)
    given = resolve_aliases(given)
    if served_one:  # a request's options go before the server's
        named = {name.rpartition(".")[2] for name in given}
        written = {name: value for name, value in written.items() if name not in named}
    for name, value in written.items():
        require(name not in given, name, given.get(name), f"{text!r} says {value!r}; give one")
    return names, resolve_aliases({**given, **written})


def has_meaning(name: str, value: Any, rest: Mapping[str, Any], length: int) -> bool:
    """Whether a default of the server's has one beside what a request says."""
    if name in ("top_k", "top_p", "min_p"):
        return rest.get("temperature") != 0
    if name == "negative_prompt":
        return rest.get("cfg_scale") != 0
    fits = not isinstance(value, int) or value <= length
    return fits or name not in ("block_length", "steps", "suffix")


def check_model(given: Any, name: str) -> None:
    if not isinstance(given, str):
        raise Refused("model: send the name of the model, a text", "model")
    if given != name:
        message = f"model={given[:80]!r}: there is {name!r} here"
        raise Refused(message, "model", status=404, code="model_not_found")


def check_neutral(rest: dict[str, Any]) -> None:
    """Take out what has no effect; refuse fields that ask for what is not done."""
    for name in IGNORED:
        rest.pop(name, None)
    for name, value in NEUTRAL.items():
        if name in rest:
            given = rest.pop(name)
            require(same(given, value), name, given, "this is not served: leave it out")
    for name in OWN:
        require(name not in rest, name, rest.get(name), "this is not a client's to choose")
    if same(rest.get("top_p"), 1):  # what clients send for "all of them"
        del rest["top_p"]


def same(given: Any, value: Any) -> bool:
    """Whether two values of JSON are equal; true is not 1."""
    return given == value and isinstance(given, bool) == isinstance(value, bool)


def usage_wanted(given: Any, stream: bool) -> bool:
    if given is None:
        return False
    require(stream, "stream_options", given, "it goes with stream")
    known = isinstance(given, dict) and given.keys() <= {"include_usage", "include_obfuscation"}
    require(known, "stream_options", given, 'give {"include_usage": true}')
    return conform("stream_options.include_usage", given.get("include_usage", False), bool)


def conversation(messages: Any, served: Served) -> list[Any]:
    """The messages as one prompt; without a chat template, the text of a single one."""
    usable = isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages)
    require(bool(usable), "messages", messages, "give a list of {role, content}")
    for message in messages:
        extra = message.keys() - {"role", "content", "name"}
        require(not extra, "messages", sorted(extra), "a message has a role and a text as content")
    if served.has_template:
        return [messages]
    single = len(messages) == 1 and messages[0].get("role") == "user"
    fix = "this model has no chat template: send a single message of the user, a text"
    content = messages[0].get("content")
    require(single and isinstance(content, str), "messages", messages, fix)
    return [content]


def several(prompt: Any) -> list[Any]:
    """The prompts of a completion: a text, token ids, or a list of either."""
    if isinstance(prompt, str) or is_ids(prompt):
        return [prompt]
    known = isinstance(prompt, list) and all(isinstance(one, str) or is_ids(one) for one in prompt)
    require(
        known and len(prompt) > 0, "prompt", prompt, "give a text, token ids, or a list of either"
    )
    return prompt


def is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def stop_strings(stop: Any, same: Any) -> tuple[str, ...]:
    require(stop is None or same is None, "stop_strings", same, "stop says it already; give one")
    given = stop if same is None else same
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    usable = isinstance(texts, list) and all(isinstance(one, str) and one for one in texts)
    fix = f"give a text or up to {MOST_STOPS} of them, none empty"
    require(usable and len(texts) <= MOST_STOPS, "stop", given, fix)
    return tuple(texts)


def listed(value: Any) -> Any:
    """A list as a tuple, as options take them."""
    return tuple(value) if isinstance(value, list) else value


def text_length(rest: dict[str, Any], default: int, limits: Limits) -> int:
    """Positions of each text; takes them out of the fields."""
    given = {name: rest.pop(name) for name in LENGTHS if name in rest}
    for name, value in given.items():
        conform(name, value, Count)
        require(value <= limits.tokens, name, value, f"at most {limits.tokens} here")
    require(len(set(given.values())) < 2, "max_tokens", given, "give one")
    return conform("max_tokens", next(iter(given.values()), default), Count)


def check_options(sampler: str, options: Mapping[str, Any]) -> None:
    """Refuse what JSON cannot say, and options that name a file of the server's."""
    for name, value in options.items():
        values: Sequence[Any] = value if isinstance(value, tuple) else [value]
        plain = all(isinstance(one, (str, int, float)) for one in values)
        require(plain, name, value, "give a number, a text, true or false, or a list of these")
        exact = all(not isinstance(one, int) or abs(one) < 2**53 for one in values)
        require(exact, name, value, "whole numbers of JSON have 53 bits")
    composition, own = Composition.read(sampler, options)
    for entry in composition.entries:
        for name in entry.wants:
            fix = "it names a file, which a client may not"
            for full in (name, f"{entry.name}.{name}"):
                require(not (full in own and names_file(entry, name)), full, own.get(full), fix)


def names_file(entry: Registered, name: str) -> bool:
    hint = entry.wants[name]
    return any("PathLike" in str(kind) for kind in (hint, *get_args(hint))) or hint is os.PathLike
