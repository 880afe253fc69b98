"""What the decoding loop asks of a model.

Shapes: **N** rows, **W** queries, **T** keys, **H** heads, **D** width, **V** vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KeyValueHook = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(layer, keys, values) -> (keys, values)`: sees the fresh (N, H, W, D/H) pair of each layer and
returns the (N, H, T, D/H) pair to attend to. This is where a key/value cache plugs in."""


class Watch:
    """A key/value hook that is shown what attends to what, too: one that a forward is handed.

    As it stands it leaves keys and values alone; a cache's has a `__call__` of its own.
    """

    def __call__(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        """Called in each layer behind the hook itself, with queries and keys as they are rotated.

        Args:
            queries: (N, H, W, D/H); what some of them attend to, `attention_weights` says.
            keys: (N, H', T, D/H), H a multiple of H'.
            attend: see `Denoiser.encode`.
        """
        raise NotImplementedError


def attention_weights(queries: Tensor, keys: Tensor, attend: Tensor | None) -> Tensor:
    """What each query looks at, (N, H, W, T) float32, of what `Watch.see` is given."""
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    score = (queries @ keys.mT).float() / queries.shape[-1] ** 0.5
    return (score if attend is None else score.masked_fill(~attend, -torch.inf)).softmax(-1)


def block_causal(query: Tensor, key: Tensor, block: int) -> Tensor:
    """Whether positions `query` (…, W) see positions `key` (…, T): bool (…, W, T).

    Blocks of `block` positions are counted from position 0. A position sees its own block in both
    directions and all blocks before it.
    """
    return key[..., None, :] // block <= query[..., None] // block


class Denoiser:
    """A masked-diffusion language model as the loop sees it: the base class of all of them.

    A model gives `mask_id`, `eos_ids`, `device`, `encode` and `head`; the rest has a default.
    """

    mask_id: int = -1  # `load` and `wrap` set it; before, the one that a family publishes
    eos_ids: tuple[int, ...] = ()  # the first one fills what an early stop leaves open
    family: str | None = None  # what presets of samplers go by
    num_layers: int | None = None  # those that a key/value hook is called in; None is unknown
    vocab_size: int | None = None  # ids that the model takes; None is unknown
    max_length: int | None = None  # positions the model can address
    supports_cache: bool = True  # whether `encode` calls a key/value hook
    takes_positions: bool = True  # whether `encode` can be given positions with gaps
    block_length: int | None = None  # of attention that is causal between blocks; None is full
    shift: int = 0  # 0: the state at i predicts token i; 1: it predicts token i + 1
    tokenizer: Any = None
    folder: Path | None = None  # where it was loaded from

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    def encode(
        self,
        tokens: Tensor,
        position: Tensor,
        attend: Tensor | None = None,
        cache: KeyValueHook | None = None,
    ) -> Tensor:
        """Hidden states (N, W, D) of `tokens` (N, W) at absolute `position` (N, W).

        `attend` is a bool mask that broadcasts to (N, 1, W, T), true where a query may look. It is
        all that limits attention: who calls builds it with `attention`.
        """
        raise NotImplementedError

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, D)."""
        raise NotImplementedError

    def pattern(self, query: Tensor, key: Tensor) -> Tensor | None:
        """Who sees whom: bool (N, W, T) for positions `query` (N, W) and `key` (N, T).

        None is full attention. With a `block_length` attention is causal between blocks.
        """
        block = self.block_length
        return None if block is None else block_causal(query, key, block)

    def attention(self, query: Tensor, key: Tensor, shown: Tensor | None = None) -> Tensor | None:
        """The mask of a forward, for `attend` of `encode`: the model's pattern and what is shown.

        Args:
            query: (N, W) int64, absolute positions of the tokens of the forward.
            key: (N, T) int64, those of the keys they are given.
            shown: bool that broadcasts to (N, 1, W, T), false where a key is hidden; None hides
                nothing.
        """
        pattern = self.pattern(query, key)
        if pattern is None:
            return shown
        return pattern[:, None] if shown is None else pattern[:, None] & shown
