"""Fused ops."""

from dlmdecode.reference import Proposed, credit, propose

__all__ = ["Proposed", "credit", "propose"]
