"""Dream 7B (arXiv 2508.15487): grouped-query attention, biased projections, shifted logits.

Configuration and parameter names are those of the published checkpoints (`model_type: "Dream"`).
The logits at position i predict the token at position i + 1; `shift = 1` says so, and the caches
and the loop only ever ask for "the logits of position i".
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
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "use_mrope": (False,),
    "quantization_config": (),
}


class DreamAttention(nn.Module):
    """Holder of the four projections under their original names."""

    def __init__(self, width: int, kv_width: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)


class DreamMLP(nn.Module):
    """Gated MLP under its original names."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DreamBlock(Block):
    def __init__(self, layer: int, config: Config):
        heads, kv_heads, size = head_sizes(config)
        super().__init__(layer, heads, kv_heads)
        width, eps = heads * size, config.number("rms_norm_eps", 1e-6)
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = DreamAttention(width, kv_heads * size)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = DreamMLP(width, config.count("intermediate_size"))

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attention = self.input_layernorm(x), self.self_attn
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.self_attn.o_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


def head_sizes(config: Config) -> tuple[int, int, int]:
    heads, kv_heads, size = config.heads(
        "hidden_size", "num_attention_heads", "num_key_value_heads"
    )
    config.refuse_unsupported({"head_dim": (size,)})
    return heads, kv_heads, size


@register_family("Dream", embedded={"tiny-dream": Path(__file__).parent / "tiny-dream"})
class Dream(Transformer):
    """`config` is the checkpoint's config.json as a dict; `mask_id` and `eos_ids` come from it."""

    family = "Dream"
    shift = 1
    layers_field, tied_field = "num_hidden_layers", "tie_word_embeddings"
    layer_names = "model.layers."
    embedding_name = "model.embed_tokens.weight"
    head_name = "lm_head.weight"

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        config = self.config
        config.refuse_unsupported(SUPPORTED)
        full = config.get("block_size") is None
        config.require(
            full, "block_size", "block-causal models (DreamReasoner) are not implemented"
        )
        heads, self.num_kv_heads, self.head_dim = head_sizes(config)
        width = heads * self.head_dim
        self.rope_theta = rope_theta(config)
        self.max_length = config.count_or_none("max_position_embeddings")
        vocab = config.count("vocab_size", most=LARGEST_VOCABULARY)
        layers = [DreamBlock(i, config) for i in range(config.count("num_hidden_layers"))]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(vocab, width),
                "layers": nn.ModuleList(layers),
                "norm": RMSNorm(width, config.number("rms_norm_eps", 1e-6)),
            }
        )
        if not config.flag("tie_word_embeddings"):
            self.lm_head = nn.Linear(width, vocab, bias=False)

    @classmethod
    def load_tokenizer(cls, folder: Path) -> Any:
        """The hub's is custom Python over Qwen2's vocabulary and merges: stock Qwen2 reads these.

        Its added tokens come from tokenizer_config.json.
        """
        from transformers import Qwen2Tokenizer

        if not (folder / "vocab.json").is_file():
            return super().load_tokenizer(folder)
        tokenizer = Qwen2Tokenizer.from_pretrained(folder)
        check_added_tokens(folder, tokenizer)
        return tokenizer

    @property
    def embedding(self) -> nn.Embedding:
        return self.model["embed_tokens"]  # type: ignore[return-value]

    @property
    def blocks(self) -> Iterable[Block]:
        return self.model["layers"]  # type: ignore[return-value]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.model["norm"](x)

    def head(self, hidden: Tensor) -> Tensor:
        if self.config.flag("tie_word_embeddings"):
            return F.linear(hidden, self.embedding.weight)
        return self.lm_head(hidden)


def check_added_tokens(folder: Path, tokenizer: Any) -> None:
    """Added tokens are numbered on from the vocabulary, whatever ids their file gives them."""
    file = Config.read_if_there(folder / "tokenizer_config.json")
    stated = file.get("added_tokens_decoder") or {}
    file.require(isinstance(stated, dict), "added_tokens_decoder", "it must be an object")
    for id, token in stated.items():
        content = token.get("content") if isinstance(token, dict) else token
        found = tokenizer.convert_tokens_to_ids(content)
        if str(found) != id:
            raise ValueError(
                f"{file.path} gives {content!r} the id {id}, but vocab.json leaves it {found}"
            )
