"""Cache policies: which keys and values are kept, and which positions a forward computes anew."""

from dlmdecode.caches import dcd, dsb, fast_dllm  # noqa: F401  (register on import)
from dlmdecode.caches.base import Recompute, ShownUntil, gather_states
from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.committed import CommittedCache
from dlmdecode.caches.d2 import CertainCache
from dlmdecode.caches.delayed import DelayedCache
from dlmdecode.caches.features import FeatureCache
from dlmdecode.caches.flash import BudgetCache
from dlmdecode.caches.partial import PartialCache
from dlmdecode.caches.registry import cache_policy, list_caches, register_cache
from dlmdecode.caches.sliding import SlidingCache
from dlmdecode.caches.sparse import SparseCache
from dlmdecode.caches.store import Store
from dlmdecode.caches.view import attention_mask, view, visible

__all__ = [
    "BlockCache",
    "BudgetCache",
    "CertainCache",
    "CommittedCache",
    "DelayedCache",
    "FeatureCache",
    "PartialCache",
    "Recompute",
    "ShownUntil",
    "SlidingCache",
    "SparseCache",
    "Store",
    "attention_mask",
    "cache_policy",
    "gather_states",
    "list_caches",
    "register_cache",
    "view",
    "visible",
]
