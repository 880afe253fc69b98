"""Any torch module whose call returns `.logits`, as a model that the loop can decode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode.checks import require
from dlmdecode.models.base import KeyValueHook


class Wrapped:
    """See `wrap`. The module recomputes whole canvases: it has no key/value hook."""

    supports_cache = False
    family = None
    max_length: int | None = None

    def __init__(
        self, module: nn.Module, mask_id: int, eos_ids: tuple[int, ...], tokenizer: Any, shift: int
    ):
        self.module, self.mask_id, self.eos_ids = module, mask_id, eos_ids
        self.tokenizer, self.shift = tokenizer, shift

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters(), torch.empty(0)).device

    def encode(
        self,
        tokens: Tensor,
        position: Tensor,
        attend: Tensor | None = None,
        cache: KeyValueHook | None = None,
    ) -> Tensor:
        """The module's logits (N, L, V); `head` passes them on."""
        if attend is None:
            out = self.module(tokens)
        else:
            mask = attend[:, 0, 0].expand(tokens.shape).long()
            out = self.module(tokens, attention_mask=mask)
        return getattr(out, "logits", out)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def wrap(
    module: nn.Module,
    mask_id: int | None = None,
    eos_ids: int | tuple[int, ...] | list[int] | None = None,
    tokenizer: Any = None,
    shift: bool = False,
) -> Wrapped:
    """Make any masked-diffusion module decodable.

    Args:
        module: called as `module(tokens)` with tokens (N, L) int64, and with `attention_mask=`
            (N, L) where a batch is ragged; returns logits (N, L, V), itself or as `.logits`.
        mask_id: id of the mask token; None takes `module.config.mask_token_id`.
        eos_ids: end-of-sequence ids, the first one fills what an early stop leaves open; None takes
            `module.config.eos_token_id`.
        tokenizer: for text prompts and `out.texts`.
        shift: True where the logits at position i predict token i + 1 (Dream).

    Raises:
        ValueError: no mask or EOS id, neither given nor in the module's config.
    """
    config = getattr(module, "config", None)
    mask_id = getattr(config, "mask_token_id", None) if mask_id is None else mask_id
    eos_ids = getattr(config, "eos_token_id", None) if eos_ids is None else eos_ids
    require(mask_id is not None, "mask_id", mask_id, "name the id of the mask token")
    require(eos_ids is not None, "eos_ids", eos_ids, "name at least one end-of-sequence id")
    ids = (eos_ids,) if isinstance(eos_ids, int) else tuple(eos_ids)  # type: ignore[arg-type]
    require(len(ids) > 0 and mask_id not in ids, "eos_ids", ids, "give ids other than the mask's")
    return Wrapped(module.eval(), int(mask_id), ids, tokenizer, int(shift))  # type: ignore[arg-type]
