"""Fused ops."""

from dlmdecode.reference import Proposed, propose

__all__ = ["Proposed", "propose"]
