"""Options of the verifier's own `generate`: those that shape its text, and those refused.

An option counts the same whether a call gives it or the checkpoint's generation_config has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import StopStringCriteria

from dlmdecode.checks import (
    Between,
    Natural,
    Penalty,
    Positive,
    Probability,
    as_numbers,
    closest,
    conform,
    is_function,
    require,
)

ONE_TEXT = "speculation writes one text, token by token"
OWN_CACHE = "speculation needs a cache that can be rewound"
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
    "cache_implementation": (("dynamic", "hybrid"), OWN_CACHE),
}
OURS = ("generation_config", "max_length", "do_sample", "custom_generate", "assistant_model")
AtMostOne = Annotated[float, Between(high=1)]
SAMPLING: dict[str, Any] = {  # transformers checks them, but for shares above 1
    "top_k": int,
    **dict.fromkeys(("min_p", "top_h"), Probability),
    **dict.fromkeys(
        ("top_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), Annotated[float, Between(high=1)]
    ),
}
TEXT: dict[str, Any] = {  # what changes the scores, or ends the text; None where it checks itself
    "min_length": Natural,
    "min_new_tokens": Natural,
    "no_repeat_ngram_size": Natural,
    "encoder_no_repeat_ngram_size": Natural,
    "max_time": Positive,
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), Penalty),
    "guidance_scale": float,
    **dict.fromkeys(("remove_invalid_values", "renormalize_logits"), bool),
    **dict.fromkeys(("exponential_decay_length_penalty", "sequence_bias", "bad_words_ids")),
    **dict.fromkeys(("watermarking_config", "stop_strings")),
    **dict.fromkeys(("prefix_allowed_tokens_fn", "logits_processor", "stopping_criteria")),
    **dict.fromkeys(("negative_prompt_ids", "negative_prompt_attention_mask")),
}
IDS = {"eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"}
IDS |= {"forced_bos_token_id", "forced_eos_token_id"}


def check_options(
    options: Mapping[str, Any], temperature: float, config: GenerationConfig, vocab_size: int
) -> dict[str, Any]:
    """The options of a call beside a checkpoint's `config`, numbers as Python's.

    Raises:
        ValueError: what this loop does not do, what would have no effect, values out of range.
        TypeError: unknown names.
    """
    modes = ONLY | CACHE_ONLY
    options = {k: v for k, v in options.items() if v is not None or k not in modes}
    check_mode(options, config, modes)
    known = {*vars(config), *TEXT, *OURS}
    kept = {}
    for name, value in options.items():
        require(name not in OURS, name, value, "speculate sets it")
        if name not in known or name.startswith("_"):
            raise TypeError(f"speculate has no option {name!r}{closest(name, known)}")
        if value is not None and name not in modes:
            value = check_option(name, value, temperature, vocab_size)
        kept[name] = value
    return kept


def check_option(name: str, value: Any, temperature: float, vocab_size: int) -> Any:
    """An option's value, numbers as Python's; refuses what transformers passes over in silence."""
    if name in IDS:
        value = as_numbers(value)
        several = isinstance(value, list)
        ids = [conform(name, one, int) for one in (value if several else [value])]
        fits = all(0 <= one < vocab_size for one in ids)
        require(fits, name, value, f"the verifier's ids are 0..{vocab_size - 1}")
        return ids if several else ids[0]
    useful = name in TEXT or name in SAMPLING
    require(useful, name, value, "it has no effect on the verifier's text; leave it out")
    drawn = name not in SAMPLING or temperature > 0
    require(drawn, name, value, "it has no effect without sampling; give a temperature above 0")
    if name in ("logits_processor", "stopping_criteria"):
        several = isinstance(value, (list, tuple)) and all(map(is_function, value))
        require(several, name, value, "give a list of them, no classes")
    elif name == "prefix_allowed_tokens_fn":
        require(callable(value), name, value, "give a function (row, ids) -> ids")
    elif name.startswith("negative_prompt"):
        whole = isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point()
        require(whole, name, value, "give a tensor (B, L) of whole numbers")
    return conform(name, value, (TEXT | SAMPLING)[name])


def check_mode(
    options: Mapping[str, Any], config: GenerationConfig, only: Mapping[str, Any] = ONLY
) -> None:
    """Refuse other ways of decoding than token by token, wherever they were asked for."""
    for name, (values, why) in only.items():
        own = getattr(config, name, None)  # releases of transformers differ in what a config has
        value = options.get(name, own)
        where = "" if name in options else "the verifier's generation_config has it, and "
        instead = f"give {name}={values[0] if values else None!r}"
        require(value is None or value in values, name, value, f"{where}{why}; {instead}")


def text_options(
    options: Mapping[str, Any], config: GenerationConfig, tokenizer: Any
) -> dict[str, Any]:
    """Options of a `generate` that gives ids alone, its stop strings as a stopping criterion.

    A custom loop gets no tokenizer from `generate`, which stop strings need.
    """
    options = {"return_dict_in_generate": False} | dict(options)
    strings = options.get("stop_strings", config.stop_strings)
    options["stop_strings"] = None
    if strings is None:
        return options
    texts = [strings] if isinstance(strings, str) else strings
    usable = isinstance(texts, (list, tuple)) and len(texts) > 0
    usable = usable and all(isinstance(text, str) and text for text in texts)
    require(usable, "stop_strings", strings, "give a string or a list of strings, none empty")
    require(tokenizer is not None, "stop_strings", strings, "pass the verifier's tokenizer=")
    criteria = list(options.get("stopping_criteria") or [])
    if not any(isinstance(one, StopStringCriteria) for one in criteria):
        criteria.append(StopStringCriteria(tokenizer, strings))
    return options | {"stopping_criteria": criteria}
