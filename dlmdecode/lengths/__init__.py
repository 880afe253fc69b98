"""How long a text becomes: rules by name, and `register_length` for others."""

from dlmdecode.lengths import daedal, rho_eos  # noqa: F401  (register on import)
from dlmdecode.lengths.base import LENGTHS, Room, length_of

__all__ = ["LENGTHS", "Room", "length_of"]
