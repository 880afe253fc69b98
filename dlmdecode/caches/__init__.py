"""Cache policies: which keys and values are kept, and which positions a forward computes anew."""

from dlmdecode.caches.base import Recompute, gather_states, visible
from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.registry import cache_policy, list_caches, register_cache

__all__ = [
    "BlockCache",
    "Recompute",
    "cache_policy",
    "gather_states",
    "list_caches",
    "register_cache",
    "visible",
]
