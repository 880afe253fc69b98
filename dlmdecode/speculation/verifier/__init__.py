"""The causal model that verifies: loading it, its forwards and cache, its own choices."""

from dlmdecode.speculation.verifier.verifier import Verifier, load_verifier

__all__ = ["Verifier", "load_verifier"]
