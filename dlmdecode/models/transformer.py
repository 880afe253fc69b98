"""The transformer that the model families have in common.

The families are pre-norm decoders without a causal mask. They differ in parameter names, biases,
norms, grouped-query attention, who sees whom and which position a logit speaks for; each keeps its
own names (so that original checkpoints load unchanged) in its own file and hands the pieces to
`Block`.

Shapes: **N** rows, **W** queries, **T** keys, **H** heads, **D** width, **V** vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dlmdecode.models.config import Config
from dlmdecode.models.protocol import Denoiser, KeyValueHook, Watch
from dlmdecode.models.rotary import rotary, rotate
from dlmdecode.models.special_ids import MASKS, TURN_ENDS


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

    def before_rotation(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, H, W, D/H) as they are rotated: where a family norms its heads."""
        return q, k

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
        q, k, v = self.before_cache(x, code)
        if cache is not None:
            k, v = cache(self.layer, k, v)
        if isinstance(cache, Watch):
            cache.see(self.layer, q, k, attend)
        return self.behind_cache(x, q, k, v, attend)

    def before_cache(self, x: Tensor, code: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, H, W, D/H), as they are rotated."""
        q, k, v = self.qkv(x)
        q = rearrange(q, "n w (h d) -> n h w d", h=self.num_heads)
        k = rearrange(k, "n w (h d) -> n h w d", h=self.num_kv_heads)
        v = rearrange(v, "n w (h d) -> n h w d", h=self.num_kv_heads)
        q, k = self.before_rotation(q, k)
        return rotate(q, *code), rotate(k, *code), v

    def behind_cache(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None
    ) -> Tensor:
        """The layer's output (N, W, D), of what the queries attend to."""
        grouped = self.num_kv_heads != self.num_heads
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, enable_gqa=grouped)
        x = x + self.attention_out(rearrange(mixed, "n h w d -> n w (h d)"))
        return x + self.feed_forward(x)


class Transformer(nn.Module, Denoiser):
    """Embedding, blocks, final norm, head. A family's class says where each lives.

    It is built of a configuration, on the meta device, and filled by `load`.
    """

    # Names in the family's checkpoints: of fields, of tensors, and of special tokens, which count
    # where a checkpoint gives no ids.
    layers_field: ClassVar[str]
    tied_field: ClassVar[str]
    layer_names: ClassVar[str]
    embedding_name: ClassVar[str]
    head_name: ClassVar[str]
    mask_tokens: ClassVar[tuple[str, ...]] = MASKS
    end_tokens: ClassVar[tuple[str, ...]] = TURN_ENDS
    block_field: ClassVar[str | None] = None  # of attention causal between blocks; None is full
    published_block: ClassVar[int | None] = None  # where a configuration has no such field
    float32_names: ClassVar[tuple[str, ...]] = ()  # last names of tensors that stay in float32

    num_kv_heads: int
    head_dim: int
    rotary_dim: int | None = None  # numbers of a head that are rotated, the first ones; None is all
    rope_theta: float
    quantization: Any = None  # the `Quantization` of its weights, where `load` packed some
    device_map: Mapping[str, torch.device] = {}  # where `load` put the embedding, each block, …

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = Config.of(config)

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
    def num_layers(self) -> int:  # type: ignore[override]
        return sum(1 for _ in self.blocks)

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
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
        code = rotary(position, self.rotary_dim or self.head_dim, self.rope_theta)
        for block in self.blocks:
            x = block(x, code, attend, cache)
        return self.final_norm(x).to(tokens.device)  # where the last block's device is another

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Raw logits (N, L, V) of whole sequences (N, L), as the original checkpoint gives them.

        `attention_mask` (N, L): 0 hides a position from every query. Nothing is shifted.
        """
        position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        shown = None if attention_mask is None else attention_mask.bool()[:, None, None]
        return self.head(
            self.encode(input_ids, position, self.attention(position, position, shown))
        )
