"""LLaDA (arXiv 2502.09992): 8B Base/Instruct, 1.5, MMaDA's text, and the embedded `tiny`.

Configuration and parameter names are those of the published checkpoints (`model_type: "llada"`).
The logits at position i predict the token at position i.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dlmdecode.models.config import LARGEST_VOCABULARY, Config
from dlmdecode.models.families import register_family
from dlmdecode.models.rotary import rope_theta
from dlmdecode.models.transformer import Block, RMSNorm, Transformer

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "block_type": ("llama",),
    "rope": (True,),
    "alibi": (False,),
    "activation_type": ("silu", "swiglu"),
    "layer_norm_type": ("rms",),
    "attention_layer_norm": (False,),
    "include_bias": (False,),
    "bias_for_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "block_group_size": (1,),
    "clip_qkv": (),
}


class LLaDABlock(Block):
    def __init__(self, layer: int, config: Config):
        heads, kv_heads, size = config.heads("d_model", "n_heads", "n_kv_heads")
        super().__init__(layer, heads, kv_heads)
        width, kv_width = heads * size, kv_heads * size
        inner = config.count("mlp_hidden_size", config.count("mlp_ratio", 4, most=1024) * width)
        bias = config.flag("include_qkv_bias")
        eps = config.number("rms_norm_eps", 1e-5)
        self.attn_norm = RMSNorm(width, eps)
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, kv_width, bias=bias)
        self.v_proj = nn.Linear(width, kv_width, bias=bias)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_norm = RMSNorm(width, eps)
        self.ff_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.ff_out = nn.Linear(inner, width, bias=False)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.attn_norm(x)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.attn_out(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        x = self.ff_norm(x)
        return self.ff_out(F.silu(self.ff_proj(x)) * self.up_proj(x))


@register_family("mmada", checkpoints="MMaDA-8B, its text")
@register_family(
    "llada",
    embedded={"tiny": Path(__file__).parent / "tiny"},
    checkpoints="LLaDA-8B, LLaDA-1.5, dParallel, d3LLM",
    recorded=("llada-vanilla",),
)
class LLaDA(Transformer):
    """`config` is the checkpoint's config.json as a dict; `mask_id` and `eos_ids` come from it."""

    family = "llada"
    layers_field, tied_field = "n_layers", "weight_tying"
    layer_names = "model.transformer.blocks."
    embedding_name = "model.transformer.wte.weight"
    head_name = "model.transformer.ff_out.weight"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        config = self.config
        config.refuse_unsupported(SUPPORTED)
        heads, self.num_kv_heads, self.head_dim = config.heads("d_model", "n_heads", "n_kv_heads")
        width = heads * self.head_dim
        self.rope_theta = rope_theta(config)
        self.max_length = config.count_or_none("max_sequence_length")
        vocab = config.count("vocab_size", most=LARGEST_VOCABULARY)
        vocab = config.count("embedding_size", vocab, most=LARGEST_VOCABULARY)
        layers = [LLaDABlock(i, config) for i in range(config.count("n_layers"))]
        parts: dict[str, nn.Module] = {
            "wte": nn.Embedding(vocab, width),
            "blocks": nn.ModuleList(layers),
            "ln_f": RMSNorm(width, config.number("rms_norm_eps", 1e-5)),
        }
        if not config.flag("weight_tying"):
            parts["ff_out"] = nn.Linear(width, vocab, bias=False)
        self.model = nn.ModuleDict({"transformer": nn.ModuleDict(parts)})

    @property
    def parts(self) -> nn.ModuleDict:
        return self.model["transformer"]  # type: ignore[return-value]

    @property
    def embedding(self) -> nn.Embedding:
        return self.parts["wte"]  # type: ignore[return-value]

    @property
    def blocks(self) -> Iterable[Block]:
        return self.parts["blocks"]  # type: ignore[return-value]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.parts["ln_f"](x)

    def head(self, hidden: Tensor) -> Tensor:
        if "ff_out" in self.parts:
            return self.parts["ff_out"](hidden)
        return F.linear(hidden, self.embedding.weight)
