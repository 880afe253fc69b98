"""Speculation: a diffusion model drafts, a causal model verifies, the text is the latter's."""

from dlmdecode.speculation.cut_length import ConfidentLength, CostLength, EntropyLength
from dlmdecode.speculation.diffuspec.lattice import Lattice, TopM
from dlmdecode.speculation.diffuspec.lattice_tree import LatticeTree
from dlmdecode.speculation.diffuspec.ngram import NGram, OnlineNGram
from dlmdecode.speculation.diffuspec.path_search import PathSearch
from dlmdecode.speculation.draft_length import AdaptiveLength, DraftLength, FixedLength
from dlmdecode.speculation.drafters import (
    CausalDrafter,
    DiffusionDrafter,
    Drafter,
    FailFast,
    Fused,
    Hierarchy,
    LayerSkip,
    LogitSpec,
    Observation,
    ObservedNGrams,
    PromptLookup,
    Recycling,
    Suffix,
    Switch,
    ThresholdDrafter,
    list_drafters,
    register_drafter,
)
from dlmdecode.speculation.loop import speculate
from dlmdecode.speculation.result import Speculation, Step
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.acceptance import TypicalAcceptance
from dlmdecode.speculation.verifier.verifier import Verifier, load_verifier

__all__ = [
    "AdaptiveLength",
    "CausalDrafter",
    "ConfidentLength",
    "CostLength",
    "DiffusionDrafter",
    "Draft",
    "DraftLength",
    "Drafter",
    "EntropyLength",
    "FailFast",
    "FixedLength",
    "Fused",
    "Hierarchy",
    "Lattice",
    "LatticeTree",
    "LayerSkip",
    "LogitSpec",
    "NGram",
    "Observation",
    "ObservedNGrams",
    "OnlineNGram",
    "PathSearch",
    "PromptLookup",
    "Recycling",
    "Speculation",
    "Step",
    "Suffix",
    "Switch",
    "ThresholdDrafter",
    "TopM",
    "TypicalAcceptance",
    "Verifier",
    "list_drafters",
    "load_verifier",
    "register_drafter",
    "speculate",
]
