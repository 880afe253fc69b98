"""What the decoding loop asks of a model.

Shapes: **N** rows, **W** queries, **T** keys, **H** heads, **D** width, **V** vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

KeyValueHook = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(layer, keys, values) -> (keys, values)`: sees the fresh (N, H, W, D/H) pair of each layer and
returns the (N, H, T, D/H) pair to attend to. This is where a key/value cache plugs in."""


@runtime_checkable
class Denoiser(Protocol):
    """A masked-diffusion language model as the loop sees it."""

    mask_id: int
    eos_ids: tuple[int, ...]  # the first one fills what an early stop leaves open
    shift: int  # 0: the state at i predicts token i; 1: the state at i predicts token i + 1
    max_length: int | None  # positions the model can address
    supports_cache: bool  # whether `encode` calls a key/value hook
    tokenizer: Any

    @property
    def device(self) -> torch.device: ...

    def encode(
        self,
        tokens: Tensor,
        position: Tensor,
        attend: Tensor | None = None,
        cache: KeyValueHook | None = None,
    ) -> Tensor:
        """Hidden states (N, W, D) of `tokens` (N, W) at absolute `position` (N, W).

        `attend` is a bool mask that broadcasts to (N, 1, W, T), true where a query may look.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, D)."""
        ...
