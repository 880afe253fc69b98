"""Fast-dLLM's prefix and dual caches (arXiv 2505.22618) by name."""

from __future__ import annotations

from dlmdecode.caches.blockwise import BlockCache
from dlmdecode.caches.registry import register_cache
from dlmdecode.models.protocol import Denoiser


@register_cache("prefix", paper="Fast-dLLM (arXiv 2505.22618)", recorded=("fastdllm",))
def prefix_cache(model: Denoiser) -> BlockCache:
    """Keep what stands before the open block; refresh when the block is full. Approximate."""
    return BlockCache(model)


@register_cache("dual", paper="Fast-dLLM (arXiv 2505.22618)", recorded=("fastdllm",))
def dual_cache(model: Denoiser) -> BlockCache:
    """Keep everything outside the open block; refresh when the block is full. Approximate."""
    return BlockCache(model, dual=True)
