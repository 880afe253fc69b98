"""What a call of `generate` and an engine start from: model, recipe and settings, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from dlmdecode.infilling import check_infill, lay_out
from dlmdecode.lengths import length_of
from dlmdecode.models.loading import load
from dlmdecode.models.protocol import Denoiser
from dlmdecode.models.wrap import as_denoiser, wrap
from dlmdecode.parts.blocks import check_blocks, check_suffix
from dlmdecode.presets import AUTO, Preset, preset_of
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.recipe import negative_rows, recipe_of
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
    lengths: set[int]  # of texts, for which the composition gives this sampler
    preset: Preset | None = None  # what sampler="auto" stands for

    @classmethod
    def of(
        cls, model: Any, sampler: Any, options: Mapping[str, Any], logits_processor: Any = None
    ) -> Call:
        preset = None
        if sampler == AUTO:
            model = resolve_model(model)
            preset = preset_of(model)
            given = {name.rpartition(".")[2] for name in options}
            own = {name: value for name, value in preset.options.items() if name not in given}
            sampler, options = preset.sampler, own | dict(options)
        composition, options = Composition.read(sampler, options)
        settings, options = Settings.of(options)
        model, length = resolve_model(model), settings.max_new_tokens
        check_blocks(settings.block_length, settings.steps, length, model)
        recipe = recipe_of(model, composition, options, settings, logits_processor)
        check_suffix(settings.suffix, settings.suffix_tail, recipe, model)
        return cls(model, recipe, settings, composition, options, {length}, preset)

    @property
    def seed(self) -> int:
        return self.settings.seed or 0

    def length(self, max_new_tokens: int | None) -> int:
        """Positions of a text of its own length, None for that of the call.

        Raises `ValueError` where other settings do not allow it, or the sampler depends on it.
        """
        length = conform("max_new_tokens", max_new_tokens, Count | None)
        if length is None:
            return self.settings.max_new_tokens
        if length not in self.lengths:
            own = replace(self.settings, max_new_tokens=length)
            check_blocks(own.block_length, own.steps, length, self.model)
            if own.length is not None:
                length_of(own.length, length, self.sampler, self.model)
            fix = f"the sampler is built for {self.settings.max_new_tokens}: all texts share it"
            require(self.suits(own), "max_new_tokens", length, fix)
            self.lengths.add(length)
        return length

    def suits(self, own: Settings) -> bool:
        """Whether the composition gives the same sampler under settings with another length."""
        entries = self.composition.entries
        if own.steps is None and not any(entry.takes("max_new_tokens") for entry in entries):
            return True
        mine, theirs = (
            self.composition.build(
                self.model.family, settings.facts, self.options, self.model.block_length
            )
            for settings in (self.settings, own)
        )
        return mine == theirs

    def requests(
        self, prompt: Any, mask: Any = None, length: int | None = None, seed: int | None = None
    ) -> list[Request]:
        """A request for each text, numbered; those of equal prompts get noise of their own.

        Raises `ValueError` for a prompt that cannot be decoded.
        """
        length = self.length(length)
        given = encode_prompts(prompt, mask, self.model, may_be_empty=True)
        prompts = [row for row in given for _ in range(self.settings.num_return_sequences)]
        check_context(prompts, length, self.model)
        noise = torch.zeros(len(prompts), dtype=torch.int64, device=self.model.device)
        if self.sampler.draws:
            noise = streams(prompts, self.seed if seed is None else seed)
        own = self.settings
        if length != own.max_new_tokens:
            own = replace(own, max_new_tokens=length)
        negative = negative_rows(own, prompts, self.model)
        found = [
            Request(i, ids, length, noise[i], None if negative is None else negative[i])
            for i, ids in enumerate(prompts)
        ]
        if self.sampler.openings:  # what does not fit there is an error now
            self.canvas(found[:1])
        return found

    def infills(self, rows: Sequence[Tensor]) -> list[Request]:
        """A request for each text whose ids (P,) have masks in the gaps, as `requests` gives them.

        Raises `ValueError` for what does not go together with gaps.
        """
        check_infill(self.settings, self.sampler, self.model)
        rows = [row for row in rows for _ in range(self.settings.num_return_sequences)]
        found = []
        for i, (ids, noise) in enumerate(zip(rows, streams(rows, self.seed), strict=True)):
            gaps = (ids == self.model.mask_id).nonzero()[:, 0]
            self.length(len(gaps))
            prompt, form = ids[: gaps[0]], ids[gaps[0] :]
            found.append(Request(i, prompt, len(form), noise, None, form))
        if self.sampler.openings:
            self.canvas(found)
        return found

    @torch.inference_mode()
    def canvas(self, requests: Sequence[Request]) -> Canvas:
        """Their rows as they are before the first step."""
        prompts, lengths = [r.prompt for r in requests], [r.length for r in requests]
        noise = torch.stack([request.stream for request in requests])
        canvas = Canvas.of(
            prompts,
            lengths,
            self.model.mask_id,
            self.model.eos_ids,
            noise,
            self.settings.suffix,
            self.settings.suffix_tail,
        )
        forms = [request.form for request in requests if request.form is not None]
        if forms:
            lay_out(canvas, forms)
        for opening in self.sampler.openings:
            opening(canvas)
        return canvas

    def forward(self, num_rows: int) -> Forward:
        """How up to `num_rows` rows reach the model: as the recipe or the cache policy says."""
        forward = forward_of(self.model, self.sampler, self.settings)
        if self.settings.cfg_scale == 0:
            return forward
        nothing = torch.empty(0, dtype=torch.int64, device=self.model.device)
        negative = None if self.settings.negative_prompt is None else [nothing] * num_rows
        return Guided(forward, self.settings.cfg_scale, num_rows, negative)


def forward_of(model: Denoiser, recipe: Sampler, settings: Settings) -> Forward:
    """The leaf forward: the recipe's own, or the cache policy's."""
    if recipe.evaluate is None:
        forward, unsaid = cache_policy(model, settings.cache), False
    else:
        forward, unsaid = recipe.evaluate(model, settings), None
    wants = recipe.blocks is not None and recipe.blocks.slides
    follows = getattr(forward, "slides", unsaid)
    fix = "the sampler's window slides: use a cache that follows it ('dsb', 'dcd'), or 'none'"
    require(follows or not wants or follows is None, "cache", settings.cache, fix)
    fix = "it follows a window that slides, as those of 'dsb' and 'dcd'"
    require(not follows or wants, "cache", settings.cache, fix)
    fix = "it would compute other positions for each half of guidance: use another one"
    guides = getattr(forward, "guides", True)
    require(guides or not settings.cfg_scale, "cache", settings.cache, fix)
    return forward
