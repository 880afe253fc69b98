"""The recipe of one call: a sampler, and what the call's settings add to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from dlmdecode.checks import check_id, is_function, require
from dlmdecode.composition import Composition
from dlmdecode.decoding.parts import Processor
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.lengths import length_of
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.processors import (
    LogitsProcessors,
    MinPFilter,
    RepetitionPenalty,
    SuppressTokens,
    TopKFilter,
    TopPFilter,
)
from dlmdecode.parts.remasking import EndOfSequence, StopStrings
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.settings import Settings

ENDS = Sampler(revisions=(EndOfSequence(),))


def recipe_of(
    model: Denoiser,
    composition: Composition,
    options: Mapping[str, Any],
    settings: Settings,
    logits_processor: Any = None,
) -> Sampler:
    """The complete recipe, bound to the model.

    What changes logits comes before the sampler's own processors, what cuts the distribution behind
    them, as in transformers. Settings that the sampler takes itself are left to it.

    Raises:
        ValueError: a setting that has no effect beside the others, or that the model refuses.
        TypeError: an unknown option of the sampler.
    """
    recipe = composition.build(model.family, settings.facts, options, model.block_length)
    temperature = recipe.temperature or settings.temperature
    filters = filters_of(temperature, composition, settings, model.mask_id)
    before = penalties_of(settings, logits_processor, model)
    recipe = replace(
        recipe,
        temperature=temperature,
        min_tokens_per_step=settings.min_tokens_per_step,
        processors=(*before, *recipe.processors, *filters),
    )
    several = settings.num_return_sequences
    fix = "without a temperature all of them are the same text: give temperature too"
    require(several == 1 or recipe.draws, "num_return_sequences", several, fix)
    if settings.length is not None:
        recipe = recipe.merge(length_of(settings.length, settings.max_new_tokens, recipe, model))
    if settings.eos == "stop":
        recipe = recipe.merge(ENDS)
    if settings.stop_strings is not None:
        stop = StopStrings(tuple(settings.stop_strings), recipe.takes_back)
        recipe = recipe.merge(Sampler(revisions=(stop,)))
    return recipe.bind(model)


def penalties_of(
    settings: Settings, logits_processor: Any, model: Denoiser
) -> tuple[Processor, ...]:
    """What changes the logits themselves."""
    found: list[Processor] = []
    if settings.repetition_penalty is not None:
        found.append(RepetitionPenalty(settings.repetition_penalty))
    if settings.suppress_tokens is not None:
        ids = tuple(settings.suppress_tokens)  # type: ignore[arg-type]
        for id in ids:
            check_id("suppress_tokens", id, model)
        size, banned = model.vocab_size, len({*ids, model.mask_id})
        fix = "no token is left that could be written"
        require(size is None or banned < size, "suppress_tokens", f"{len(ids)} ids", fix)
        found.append(SuppressTokens(ids))
    if logits_processor is not None:
        several = isinstance(logits_processor, (list, tuple))  # a LogitsProcessorList is a list
        functions = tuple(logits_processor) if several else (logits_processor,)
        fix = "give a function (input_ids, scores) -> scores, or a list of these; no class"
        usable = bool(functions) and all(map(is_function, functions))
        require(usable, "logits_processor", logits_processor, fix)
        found.append(LogitsProcessors(functions))
    return tuple(found)


def filters_of(
    warmth: float, composition: Composition, settings: Settings, mask_id: int
) -> tuple[Processor, ...]:
    """What cuts the distribution at temperature `warmth`, which never holds the mask."""
    filters: dict[str, Processor] = {}
    if settings.top_k is not None:
        filters["top_k"] = TopKFilter(settings.top_k)
    if settings.top_p is not None:
        filters["top_p"] = TopPFilter(settings.top_p, warmth or 1)
    if settings.min_p is not None:
        filters["min_p"] = MinPFilter(settings.min_p, warmth or 1)
    for name in [name for name in filters if any(one.takes(name) for one in composition.entries)]:
        del filters[name]
    for name in filters:
        fix = "at temperature 0 nothing is drawn: give a temperature, or leave it out"
        require(warmth > 0, name, getattr(settings, name), fix)
    return (SuppressTokens((mask_id,)), *filters.values()) if filters else ()


def negative_rows(
    settings: Settings, prompts: list[Tensor], model: Denoiser
) -> list[Tensor] | None:
    """The negative prompt of each row of `prompts`; None where there is none."""
    if settings.negative_prompt is None:
        return None
    try:
        found = encode_prompts(settings.negative_prompt, None, model, may_be_empty=True)
    except ValueError as error:  # which names a prompt
        raise ValueError(f"negative_{error}") from error
    count = len(prompts) // settings.num_return_sequences
    fix = f"give one for all, or one for each of the {count} prompts"
    require(len(found) in (1, count), "negative_prompt", f"{len(found)} prompts", fix)
    found = [found[i % len(found)] for i in range(count)]
    found = [row for row in found for _ in range(settings.num_return_sequences)]
    check_context(found, settings.max_new_tokens, model)
    block = model.block_length or 1
    fix = f"its length and the prompt's agree modulo the model's blocks of {block} positions"
    pairs = zip(found, prompts, strict=True)
    fits = all((len(one) - len(other)) % block == 0 for one, other in pairs)
    require(fits, "negative_prompt", settings.negative_prompt, fix)
    return found
