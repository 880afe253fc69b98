"""What proposes drafts: a diffusion model, a small causal model, a look at the text itself."""

from dlmdecode.speculation.drafters.base import Drafter, Observation
from dlmdecode.speculation.drafters.causal import CausalDrafter
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter
from dlmdecode.speculation.drafters.lookup import PromptLookup
from dlmdecode.speculation.drafters.registry import list_drafters, register_drafter
from dlmdecode.speculation.drafters.resolve import resolve_drafter

__all__ = [
    "CausalDrafter",
    "DiffusionDrafter",
    "Drafter",
    "Observation",
    "PromptLookup",
    "list_drafters",
    "register_drafter",
    "resolve_drafter",
]
