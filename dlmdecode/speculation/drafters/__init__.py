"""What proposes drafts: a diffusion model, a small causal model, a look at texts."""

from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.causal import CausalDrafter
from dlmdecode.speculation.drafters.combined import Fused, Switch
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter
from dlmdecode.speculation.drafters.forwards import FailFast, ThresholdDrafter
from dlmdecode.speculation.drafters.layerskip import LayerSkip
from dlmdecode.speculation.drafters.logitspec import LogitSpec
from dlmdecode.speculation.drafters.lookup import Hierarchy, PromptLookup
from dlmdecode.speculation.drafters.observed import ObservedNGrams
from dlmdecode.speculation.drafters.recycling import Recycling
from dlmdecode.speculation.drafters.registry import list_drafters, register_drafter
from dlmdecode.speculation.drafters.resolve import resolve_drafter
from dlmdecode.speculation.drafters.suffix import Suffix

__all__ = [
    "CausalDrafter",
    "DiffusionDrafter",
    "Drafter",
    "FailFast",
    "Fused",
    "Hierarchy",
    "LayerSkip",
    "LogitSpec",
    "ObservedNGrams",
    "Observation",
    "PromptLookup",
    "Recycling",
    "Suffix",
    "Switch",
    "ThresholdDrafter",
    "list_drafters",
    "register_drafter",
    "resolve_drafter",
]
