"""Options of the verifier's own `generate` that `speculate` passes on, and those it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.generation.stopping_criteria import StopStringCriteria

from dlmdecode.checks import Between, closest, number, require
from dlmdecode.speculation.verifier import Verifier

REFUSED = {"num_beams": 1, "num_return_sequences": 1}
OURS = ("generation_config", "max_length", "do_sample", "custom_generate", "assistant_model")


def check_options(options: dict[str, Any], temperature: Any, verifier: Verifier) -> None:
    """Refuse what this loop does not do, and unknown names."""
    number("temperature", temperature, Between(0))
    defaults = verifier.model.generation_config
    for name, only in REFUSED.items():
        value = options.get(name, getattr(defaults, name, None))
        require(value in (None, only), name, value, f"speculation works for {only} only")
    for name in OURS:
        require(name not in options, name, options.get(name), "speculate sets it")
    known = [*vars(type(defaults)()), "stopping_criteria", "logits_processor"]
    for name in options:
        if name not in known:
            raise TypeError(f"speculate has no option {name!r}{closest(name, known)}")


def with_stop_strings(options: dict[str, Any], verifier: Verifier) -> dict[str, Any]:
    """Stop strings as a stopping criterion: `generate` gives a custom loop no tokenizer."""
    defaults = verifier.model.generation_config
    strings = options.pop("stop_strings", None) or defaults.stop_strings
    if not strings:
        return options
    words = verifier.tokenizer
    require(words is not None, "stop_strings", strings, "pass the verifier's tokenizer=")
    given = options.get("stopping_criteria") or []
    return options | {"stopping_criteria": [*given, StopStringCriteria(words, strings)]}


@contextmanager
def no_stop_strings(config: Any) -> Iterator[None]:
    """Hide the stop strings of a generation config, which are a criterion by now."""
    kept, config.stop_strings = config.stop_strings, None
    try:
        yield
    finally:
        config.stop_strings = kept
