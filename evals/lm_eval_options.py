"""What the harness's users and tasks may say, in the words of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from dlmdecode.checks import Count, OneOf, conform, require
from dlmdecode.evals.likelihood import Rows
from dlmdecode.settings import resolve_aliases

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
FILTERS = ("top_p", "top_k", "min_p", "typical_p")  # of sampling: without effect on greedy text
MOST_ROWS = 64  # what batch_size=auto begins with


def require_bools(**values: Any) -> None:
    for name, value in values.items():
        require(isinstance(value, bool), name, value, "give True or False")


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names of `generate`.

    Raises `ValueError` where two names of one option have different values.
    """
    found = resolve_aliases({k: v for k, v in options.items() if k != "max_gen_toks"})
    if (length := options.get("max_gen_toks")) is not None:
        agrees = found.setdefault("max_new_tokens", length) == length
        other = found["max_new_tokens"]
        require(
            agrees, "max_gen_toks", length, f"max_new_tokens={other!r} says otherwise; give one"
        )
    return found


def rows_of(batch_size: int | str, most: int | None) -> Rows:
    """`batch_size=8`, "8", "auto" or "auto:N" (which the harness's command line gives as text)."""
    auto = isinstance(batch_size, str) and batch_size.partition(":")[0] == "auto"
    if auto:
        most = conform("max_batch_size", most, Count | None)
        return Rows(most or MOST_ROWS, adapts=True)
    require(most is None, "max_batch_size", most, "it goes with batch_size=auto only")
    count = int(batch_size) if str(batch_size).isdecimal() else batch_size
    return Rows(conform("batch_size", count, Count | Annotated[str, OneOf(("auto",))]))


def positions(model_length: int | None, given: int | None) -> int | None:
    """The positions to use: those of the model, or fewer."""
    given = conform("max_length", given, Count | None)
    within = given is None or model_length is None or given <= model_length
    require(within, "max_length", given, f"the model has {model_length} positions")
    return model_length if given is None else given


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

    A text that does not fit is cut to what the prompt leaves, but not below half of the window;
    it ends with a block, and `steps` stay as many for each block.
    """
    wanted = conform("max_new_tokens", options.get("max_new_tokens", 256), Count)
    length = wanted if limit is None else min(wanted, max(limit - prompt, limit // 2, 1))
    block = options.get("block_length")
    if length < wanted:
        whole = block or 32
        length -= length % whole if length > whole else 0
    fitted = {**options, "max_new_tokens": length}
    if isinstance(block, int):
        fitted["block_length"] = min(block, length)
    if options.get("steps") is not None and length < wanted:
        fitted["steps"] = max(options["steps"] * length // wanted, 1)
    return fitted, prompt if limit is None else max(limit - length, 1)
