"""What a call of `generate` and an engine start from: model, recipe and settings, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlmdecode.caches import cache_policy
from dlmdecode.checks import Count, conform, require
from dlmdecode.composition import Composition
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.guidance import Guided
from dlmdecode.decoding.noise import streams
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.wrap import as_denoiser, wrap
from dlmdecode.parts.blocks import check_blocks
from dlmdecode.parts.remasking import EndOfSequence
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.request import Request
from dlmdecode.settings import Settings


def resolve_model(model: Any) -> Denoiser:
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    found = as_denoiser(model)
    if found is not None:
        return found
    configured = isinstance(model, torch.nn.Module) and hasattr(model, "config")  # transformers'
    fix = (
        "give a name, what load gives, a Denoiser, or dlmdecode.wrap(module, mask_id=…, eos_ids=…)"
    )
    require(configured, "model", type(model).__name__, fix)
    return wrap(model)


@dataclass
class Call:
    """A model, a recipe and the settings of a call. Nothing was forwarded yet.

    Raises what `generate` does for them.
    """

    model: Denoiser
    sampler: Sampler
    settings: Settings
    composition: Composition
    options: dict[str, Any]  # the sampler's
    lengths: set[int] = field(default_factory=set)  # of texts, that the recipe is known to be for

    @classmethod
    def of(cls, model: Any, sampler: Any, options: Mapping[str, Any]) -> Call:
        composition, options = Composition.read(sampler, options)
        settings, options = Settings.of(options)
        model = resolve_model(model)
        recipe = recipe_of(model, composition, settings, options)
        recipe = tempered(recipe.bind(model), settings.temperature)
        if settings.eos == "stop":
            recipe = recipe.merge(Sampler(revisions=(EndOfSequence(),)))
        return cls(model, recipe, settings, composition, options, {settings.max_new_tokens})

    def length(self, max_new_tokens: int | None) -> int:
        """Positions of a text of its own length, None for that of the call.

        Raises `ValueError` where other settings do not allow it or the recipe depends on it.
        """
        length = conform("max_new_tokens", max_new_tokens, Count | None)
        if length is None:
            return self.settings.max_new_tokens
        if length not in self.lengths:
            own = replace(self.settings, max_new_tokens=length)
            mine, theirs = (
                recipe_of(self.model, self.composition, settings, self.options)
                for settings in (self.settings, own)
            )
            fix = f"the sampler is built for {self.settings.max_new_tokens}: texts share it"
            require(mine == theirs, "max_new_tokens", length, fix)
            self.lengths.add(length)
        return length

    def prompts(self, prompt: Any, mask: Any, length: int) -> list[Tensor]:
        """The ids of each prompt, each with room for a text of `length` positions."""
        prompts = encode_prompts(prompt, mask, self.model)
        check_context(prompts, length, self.model)
        if self.sampler.openings:  # what does not fit there is an error now
            self.canvas([Request(0, prompts[0], length, torch.zeros_like(prompts[0][0]))])
        return prompts

    @property
    def seed(self) -> int:
        return self.settings.seed or 0

    def requests(self, prompt: Any, mask: Any) -> list[Request]:
        """A request for each prompt, numbered; equal prompts get noise of their own."""
        length = self.settings.max_new_tokens
        prompts = self.prompts(prompt, mask, length)
        rows = zip(prompts, streams(prompts, self.seed), strict=True)
        return [Request(i, ids, length, noise) for i, (ids, noise) in enumerate(rows)]

    @torch.inference_mode()
    def canvas(self, requests: Sequence[Request]) -> Canvas:
        """Their rows as they are before the first step."""
        prompts, lengths = [r.prompt for r in requests], [r.length for r in requests]
        noise = torch.stack([request.stream for request in requests])
        canvas = Canvas.of(prompts, lengths, self.model.mask_id, self.model.eos_ids, noise)
        for opening in self.sampler.openings:
            opening(canvas)
        return canvas

    def forward(self, num_rows: int) -> Forward:
        """How up to `num_rows` rows reach the model: as the recipe or the cache policy says."""
        forward = forward_of(self.model, self.sampler, self.settings)
        if self.settings.cfg_scale == 0:
            return forward
        return Guided(forward, self.settings.cfg_scale, num_rows)


def recipe_of(
    model: Denoiser, composition: Composition, settings: Settings, options: Mapping[str, Any]
) -> Sampler:
    """What the composition means for this model and these settings, unbound."""
    check_blocks(settings.block_length, settings.steps, settings.max_new_tokens, model)
    return composition.build(model.family, settings.facts, options, model.block_length)


def tempered(recipe: Sampler, temperature: float) -> Sampler:
    """The recipe at the temperature of the call, unless it has read that already."""
    return replace(recipe, temperature=recipe.temperature or temperature)


def forward_of(model: Denoiser, recipe: Sampler, settings: Settings) -> Forward:
    """The leaf forward: the recipe's own, or the cache policy's."""
    if recipe.evaluate is not None:
        return recipe.evaluate(model, settings)
    return cache_policy(model, settings.cache)
