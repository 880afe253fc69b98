"""Evaluations: GSM8K, HumanEval and held-out arithmetic, speed and accuracy in one table."""

from importlib import import_module
from typing import Any

MODULES = ("arithmetic", "report", "runner", "sandbox", "statistics", "tuning")


def __getattr__(name: str) -> Any:
    """Submodules are imported when first asked for."""
    if name in MODULES:
        return import_module(f"dlmdecode.evals.{name}")
    raise AttributeError(f"module 'dlmdecode.evals' has no attribute {name!r}")
