"""Drafts of the verifier itself with some of its layers left out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode.checks import Count, Probability, conform, require
from dlmdecode.speculation.drafters.base import Observation
from dlmdecode.speculation.drafters.causal import CausalDrafter
from dlmdecode.speculation.drafters.registry import register_drafter
from dlmdecode.speculation.verifier.facts import causal_model
from dlmdecode.speculation.verifier.verifier import load_verifier

LOOKED_AT = 128  # tokens of the prompt's end on which layers are compared


class LayerSkip(CausalDrafter):
    """The verifier without the layers that change its choices least (Draft & Verify, arXiv
    2309.08168); it shares the weights, and drafts on while it is sure of its tokens.

    Which layers these are is searched on the first prompt: one after the other goes that leaves
    most of the prompt's next tokens as all layers have them. The first layer stays.

    Args:
        model: the verifier's transformers model.
        layers: how many are kept; None keeps half.
        bound: probability below which a token is a draft's last; within a text it rises where, on a
            moving average, less than nine tenths of a draft stand, else it falls.

    Attributes:
        kept: the layers, from 0 on; all until the first draft.
    """

    draft_length = 12
    copyable = False  # its layers are searched once

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        layers: Count | None = None,
        bound: Probability = 0.8,
    ):
        self.whole = causal_model(model)
        require(self.whole is not None, "drafter", type(model).__name__, "give a causal LM")
        self.kept = list(range(len(layer_list(self.whole)[2])))
        half = max(1, len(self.kept) // 2)
        self.layers: int = half if layers is None else conform("layers", layers, Count)
        fix = f"the model has {len(self.kept)} layers: leave some of them out"
        require(self.layers < len(self.kept), "layers", self.layers, fix)
        self.first_bound: float = conform("bound", bound, Probability)
        super().__init__(model, tokenizer)

    def reset(self) -> None:
        super().reset()
        self.bound, self.matched = self.first_bound, 0.0

    def draft(self, prefix: list[int], length: int) -> list[int]:
        if len(self.kept) > self.layers:
            self.search(torch.tensor([prefix[-LOOKED_AT:]], device=self.whole.device))
        return super().draft(prefix, length)

    @torch.no_grad()
    def search(self, ids: Tensor) -> None:
        """Leave out layer after layer, by what is left of the choices on `ids` (1, L)."""

        def choices(kept: list[int]) -> Tensor:
            self.forwards += 1
            return with_layers(self.whole, kept)(ids, use_cache=False).logits[0].argmax(-1)

        wanted = choices(self.kept)
        while len(self.kept) > self.layers:
            rest = [[one for one in self.kept if one != out] for out in self.kept[1:]]
            self.kept = max(rest, key=lambda kept: int((choices(kept) == wanted).sum()))
        self.model = with_layers(self.whole, self.kept).eval()
        self.reset()

    def goes_on(self, scores: Tensor) -> bool:
        return float(scores.softmax(-1).max()) >= self.bound

    def observe(self, seen: Observation) -> None:
        if seen.draft.token:
            self.matched += 0.5 * (len(seen.accepted) / len(seen.draft) - self.matched)
            self.bound += 0.001 if self.matched < 0.9 else -0.001


def layer_list(model: Any) -> tuple[Any, str, nn.ModuleList]:
    """The part of a transformers model that holds its layers, their name in it, and the layers."""
    base, count = model.base_model, model.config.get_text_config(decoder=True).num_hidden_layers
    lists = (pair for pair in base.named_children() if isinstance(pair[1], nn.ModuleList))
    name, layers = next((pair for pair in lists if len(pair[1]) == count), ("", nn.ModuleList()))
    fix = "its layers are not in one list of its base model"
    require(bool(name) and base is not model, "drafter", type(model).__name__, fix)
    return base, name, layers


def with_layers(model: Any, kept: list[int]) -> Any:
    """The model with these of its layers, whose weights it shares."""
    base, name, layers = layer_list(model)
    whole, inner = copy.copy(model), copy.copy(base)
    whole._modules, inner._modules = dict(model._modules), dict(base._modules)
    inner._modules[name] = nn.ModuleList(layers[one] for one in kept)
    whole._modules[model.base_model_prefix] = inner
    return whole


@register_drafter("layerskip", paper="arXiv 2309.08168")
def layerskip(model: str, layers: Count | None = None, bound: Probability = 0.8) -> LayerSkip:
    """A causal model without some of its layers: give the verifier's name, hub id or folder."""
    loaded = load_verifier(model)
    return LayerSkip(loaded.model, loaded.tokenizer, layers, bound)
