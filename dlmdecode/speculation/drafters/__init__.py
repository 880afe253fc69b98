"""What proposes drafts: a diffusion model, a small causal model, a look at the text itself."""

from dlmdecode.speculation.drafters.base import Drafter
from dlmdecode.speculation.drafters.causal import CausalDrafter
from dlmdecode.speculation.drafters.diffusion import DiffusionDrafter
from dlmdecode.speculation.drafters.lookup import PromptLookup
from dlmdecode.speculation.drafters.registry import resolve_drafter

__all__ = ["CausalDrafter", "DiffusionDrafter", "Drafter", "PromptLookup", "resolve_drafter"]
