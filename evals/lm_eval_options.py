"""What the harness's users and tasks may say, in the words of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlmdecode.checks import plain, require, whole
from dlmdecode.composition import read
from dlmdecode.likelihood import Rows
from dlmdecode.settings import Settings, parse, resolve_aliases

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
FILTERS = ("top_p", "top_k", "min_p", "typical_p")  # of sampling: without effect on greedy text
MOST_ROWS = 64  # what batch_size=auto begins with


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names of `generate`.

    Raises `ValueError` where two names of one option have different values.
    """
    found = resolve_aliases(options)
    for name in LENGTHS:
        value = found.pop(name, None)
        if value is not None:
            length = found.setdefault("max_new_tokens", value)
            require(length == value, name, value, f"max_new_tokens={length!r} says otherwise")
    return found


def read_model_arguments(sampler: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The sampler without the options in its text, and all options under the names of `generate`.

    The harness's `sampler=threshold,threshold=0.5` comes as two arguments, and as one from JSON;
    what it leaves a text ("none", say) means what it does on the library's own command line.
    """
    given = {
        name: parse(name, value) if isinstance(value, str) else value
        for name, value in options.items()
    }
    if not isinstance(sampler, str):
        return sampler, canonical(given)
    names, written = read(sampler)
    for name, value in written.items():
        fix = f"the sampler's text says {name}={value!r}; give one"
        require(name not in options, name, options.get(name), fix)
    return names, canonical({**given, **written})


def rows_of(batch_size: int | str, most: int | None) -> Rows:
    """`batch_size=8`, "8", "auto" or "auto:N" (which the harness's command line gives as text)."""
    if isinstance(batch_size, str) and batch_size.partition(":")[0] == "auto":
        return Rows(MOST_ROWS if most is None else whole("max_batch_size", most), adapts=True)
    require(most is None, "max_batch_size", most, "it goes with batch_size=auto only")
    text = isinstance(batch_size, str) and batch_size.isdecimal()
    return Rows(whole("batch_size", int(batch_size) if text else batch_size))


def positions(model_length: int | None, given: int | None) -> int | None:
    """The positions to use: those of the model, or fewer."""
    if given is None:
        return model_length
    given = whole("max_length", given)
    within = model_length is None or given <= model_length
    require(within, "max_length", given, f"the model has {model_length} positions")
    return given


def read_settings(settings: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments of `generate` and the stop strings that a task's `generation_kwargs` mean.

    As in the harness's own models: of several lengths the first of `LENGTHS` counts, and text is
    sampled where the temperature is above 0, unless `do_sample` is false.

    Raises `ValueError` for `until` that is no text or list of texts.
    """
    require(isinstance(settings, Mapping), "generation_kwargs", settings, "give a mapping")
    options = {name: value for name, value in settings.items() if value is not None}
    until = options.pop("until", ())
    until = (until,) if isinstance(until, str) else until
    texts = isinstance(until, (list, tuple)) and all(isinstance(stop, str) for stop in until)
    require(texts, "until", until, "give a text or a list of texts")
    lengths = [options.pop(name) for name in LENGTHS if name in options]
    temperature = options.pop("temperature", 0)
    if options.pop("do_sample", True) and temperature:
        options["temperature"] = temperature
    else:
        options = {name: value for name, value in options.items() if name not in FILTERS}
    if options.get("num_beams") == 1:
        del options["num_beams"]
    options = canonical(options)
    if lengths:
        options["max_new_tokens"] = lengths[0]
    return options, tuple(stop for stop in until if stop)


def fit(options: Mapping[str, Any], prompt: int, limit: int | None) -> tuple[dict[str, Any], int]:
    """Options whose text fits `limit` positions after `prompt` tokens, and the room for those.

    A text that does not fit is cut to what the prompt leaves, but not below half of the window.
    Blocks are no longer than the text then, and of `steps` as many are left as of the text.
    """
    wanted = whole("max_new_tokens", options.get("max_new_tokens", Settings.max_new_tokens))
    length = wanted if limit is None else min(wanted, max(limit - prompt, limit // 2, 1))
    fitted = {**options, "max_new_tokens": length}
    block, steps = plain(options.get("block_length")), plain(options.get("steps"))
    if isinstance(block, int):
        fitted["block_length"] = block = min(block, length)
    if isinstance(steps, int) and length < wanted:
        blocks = -(-length // block) if isinstance(block, int) and block > 0 else 1
        fitted["steps"] = max(steps * length // wanted, blocks)
    return fitted, prompt if limit is None else max(limit - length, 1)
