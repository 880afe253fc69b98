"""Options of the verifier's own `generate`: those that shape its text, and those refused.

An option counts the same whether a call gives it or the checkpoint's generation_config has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from transformers.generation.stopping_criteria import StopStringCriteria

from dlmdecode.checks import closest, require

if TYPE_CHECKING:
    from dlmdecode.speculation.verifier import Verifier

ONE_TEXT = "the verifier's text is one text, token by token"
OWN_CACHE = "the verifier's cache must be one that can be rewound"
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {  # other values mean another text, or no cache
    "num_beams": ((1,), ONE_TEXT),
    "num_beam_groups": ((1,), ONE_TEXT),
    "num_return_sequences": ((1,), ONE_TEXT),
    "constraints": ((), ONE_TEXT),
    "force_words_ids": ((), ONE_TEXT),
    "penalty_alpha": ((0,), ONE_TEXT),
    "dola_layers": ((), ONE_TEXT),
    "is_assistant": ((False,), ONE_TEXT),
    "assistant_ensemble_weight": ((), ONE_TEXT),
    "token_healing": ((False,), "a prompt is continued as it is"),
}
CACHE_ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_cache": ((True,), OWN_CACHE),
    "cache_implementation": (("dynamic", "offloaded", "hybrid"), OWN_CACHE),
}
OURS = ("generation_config", "max_length", "do_sample", "custom_generate", "assistant_model")
SAMPLING = {"top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
TEXT = {  # what changes the scores, or ends the text
    *("bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size"),
    *("encoder_repetition_penalty", "eos_token_id", "exponential_decay_length_penalty"),
    *("forced_bos_token_id", "forced_eos_token_id", "guidance_scale", "logits_processor"),
    *("max_time", "min_length", "min_new_tokens", "negative_prompt_attention_mask"),
    *("negative_prompt_ids", "no_repeat_ngram_size", "pad_token_id", "prefix_allowed_tokens_fn"),
    *("remove_invalid_values", "renormalize_logits", "repetition_penalty", "sequence_bias"),
    *("stop_strings", "stopping_criteria", "suppress_tokens", "watermarking_config"),
}
COUNTS = ("min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
SHARES = ("top_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
IDS = ("eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens")
IDS += ("forced_bos_token_id", "forced_eos_token_id")


def check_options(options: dict[str, Any], temperature: Any, verifier: Verifier) -> None:
    """Refuse what this loop does not do, what would have no effect, and unknown names."""
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    fits = number and 0 <= temperature < float("inf")
    require(fits, "temperature", temperature, "give a finite number, 0 or more")
    check_mode(options, verifier, ONLY | CACHE_ONLY)
    known = {*vars(verifier.model.generation_config), *TEXT, *OURS}
    for name, value in options.items():
        require(name not in OURS, name, value, "speculate sets it")
        if name not in known or name.startswith("_"):
            raise TypeError(f"speculate has no option {name!r}{closest(name, known)}")
        given = value is not None and name not in ONLY | CACHE_ONLY
        require(
            not given or name in TEXT | SAMPLING,
            name,
            value,
            "it has no effect on the verifier's text; leave it out",
        )
        require(
            not given or name not in SAMPLING or temperature > 0,
            name,
            value,
            "it has no effect without sampling; give a temperature above 0",
        )
        if given:
            check_range(name, value, verifier.vocab_size)


def check_mode(options: dict[str, Any], verifier: Verifier, only: dict[str, Any] = ONLY) -> None:
    """Refuse other ways of decoding than token by token, wherever they were asked for."""
    config = verifier.model.generation_config
    for name, (values, why) in only.items():
        value = options[name] if name in options else getattr(config, name, None)
        where = "" if name in options else "the verifier's generation_config has it, and "
        instead = f"give {name}={values[0] if values else None!r}"
        require(value is None or value in values, name, value, f"{where}{why}; {instead}")


def check_range(name: str, value: Any, vocab_size: int) -> None:
    """Refuse values that transformers passes over in silence."""
    if name in COUNTS:
        require(isinstance(value, int) and value >= 0, name, value, "give a whole number, from 0")
    if name in SHARES:
        require(value <= 1, name, value, "give a share of at most 1")
    if name in IDS:
        ids = value if isinstance(value, (list, tuple)) else [value]
        fits = all(0 <= one < vocab_size for one in ids)
        require(fits, name, value, f"the verifier's ids are 0..{vocab_size - 1}")


def text_options(options: dict[str, Any], verifier: Verifier) -> dict[str, Any]:
    """Options of a `generate` that gives ids alone, its stop strings as a stopping criterion.

    A custom loop gets no tokenizer from `generate`, which stop strings need.
    """
    options = {"return_dict_in_generate": False} | options
    strings = options.get("stop_strings", verifier.model.generation_config.stop_strings)
    options["stop_strings"] = None
    if strings is None:
        return options
    texts = [strings] if isinstance(strings, str) else strings
    usable = isinstance(texts, (list, tuple)) and len(texts) > 0
    usable = usable and all(isinstance(text, str) and text for text in texts)
    require(usable, "stop_strings", strings, "give a string or a list of strings, none empty")
    require(
        verifier.tokenizer is not None, "stop_strings", strings, "pass the verifier's tokenizer="
    )
    criteria = list(options.get("stopping_criteria") or [])
    if not any(isinstance(one, StopStringCriteria) for one in criteria):
        criteria.append(StopStringCriteria(verifier.tokenizer, strings))
    return options | {"stopping_criteria": criteria}
