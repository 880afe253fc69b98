"""The transformer that LLaDA, Dream and SDAR have in common.

Both families are pre-norm decoders without a causal mask. They differ in parameter names, biases,
grouped-query attention and in which position a logit speaks for; each keeps its own names (so that
original checkpoints load unchanged) in its own file and hands the pieces to `Block`.

Shapes: **N** rows, **W** queries, **T** keys, **H** heads, **D** width, **V** vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dlmdecode.models.protocol import KeyValueHook
from dlmdecode.models.rotary import rotary, rotate


class RMSNorm(nn.Module):
    """Root-mean-square norm computed in float32, scaled in the model's dtype."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class Block(nn.Module):
    """One layer: attention and a gated MLP, each behind a norm. Subclasses name the parameters."""

    def __init__(self, layer: int, num_heads: int, num_kv_heads: int):
        super().__init__()
        self.layer, self.num_heads, self.num_kv_heads = layer, num_heads, num_kv_heads

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, W, ·) of the normed input."""
        raise NotImplementedError

    def attention_out(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def feed_forward(self, x: Tensor) -> Tensor:
        """The whole second half of the layer: norm, gate, up, down."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        code: tuple[Tensor, Tensor],
        attend: Tensor | None,
        cache: KeyValueHook | None,
    ) -> Tensor:
        q, k, v = self.qkv(x)
        q = rotate(rearrange(q, "n w (h d) -> n h w d", h=self.num_heads), *code)
        k = rotate(rearrange(k, "n w (h d) -> n h w d", h=self.num_kv_heads), *code)
        v = rearrange(v, "n w (h d) -> n h w d", h=self.num_kv_heads)
        if cache is not None:
            k, v = cache(self.layer, k, v)
        grouped = self.num_kv_heads != self.num_heads
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, enable_gqa=grouped)
        x = x + self.attention_out(rearrange(mixed, "n h w d -> n w (h d)"))
        return x + self.feed_forward(x)


class Transformer(nn.Module):
    """Embedding, blocks, final norm, head. `LLaDA` and `Dream` say where each lives."""

    # Names in the family's checkpoints, of fields and of tensors.
    layers_field: ClassVar[str]
    tied_field: ClassVar[str]
    layer_names: ClassVar[str]
    embedding_name: ClassVar[str]
    head_name: ClassVar[str]

    family: str
    shift = 0
    supports_cache = True
    mask_id: int
    eos_ids: tuple[int, ...]
    max_length: int | None
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    tokenizer: Any = None
    folder: Path | None = None  # where it was loaded from

    @classmethod
    def load_tokenizer(cls, folder: Path) -> Any:
        """The checkpoint's tokenizer through a stock transformers class; None if it has none."""
        from transformers import PreTrainedTokenizerFast

        has_one = (folder / "tokenizer.json").is_file()
        return PreTrainedTokenizerFast.from_pretrained(folder) if has_one else None

    @property
    def embedding(self) -> nn.Embedding:
        raise NotImplementedError

    @property
    def blocks(self) -> Iterable[Block]:
        raise NotImplementedError

    @property
    def num_layers(self) -> int:
        return sum(1 for _ in self.blocks)

    @property
    def vocab_size(self) -> int:
        return self.embedding.num_embeddings

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def final_norm(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def head(self, hidden: Tensor) -> Tensor:
        raise NotImplementedError

    def encode(
        self,
        tokens: Tensor,
        position: Tensor,
        attend: Tensor | None = None,
        cache: KeyValueHook | None = None,
    ) -> Tensor:
        """See `Denoiser.encode`."""
        x = self.embedding(tokens)
        code = rotary(position, self.head_dim, self.rope_theta)
        for block in self.blocks:
            x = block(x, code, attend, cache)
        return self.final_norm(x)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Raw logits (N, L, V) of whole sequences (N, L), as the original checkpoint gives them.

        `attention_mask` (N, L): 0 hides a position from every query. Nothing is shifted.
        """
        position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        attend = None if attention_mask is None else attention_mask.bool()[:, None, None]
        return self.head(self.encode(input_ids, position, attend))
