"""The network of Qwen2 and Qwen3 under its checkpoints' names, which several families share.

They differ in biases, in norms of each head's queries and keys, in what a head's size makes up,
and in what computes the second half of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dlmdecode.models.config import LARGEST_VOCABULARY, Config
from dlmdecode.models.rotary import rope_theta, rotary_dim
from dlmdecode.models.transformer import Block, RMSNorm, Transformer


class QwenAttention(nn.Module):
    """Holder of the projections, and of norms of each head's queries and keys if there are any."""

    def __init__(self, config: Config, bias: bool, out_bias: bool, head_norms: bool):
        super().__init__()
        width, (heads, kv_heads, size) = config.count("hidden_size"), head_sizes(config)
        self.q_proj = nn.Linear(width, heads * size, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * size, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * size, bias=bias)
        self.o_proj = nn.Linear(heads * size, width, bias=out_bias)
        if head_norms:
            self.q_norm = RMSNorm(size, norm_eps(config))
            self.k_norm = RMSNorm(size, norm_eps(config))


class QwenMLP(nn.Module):
    """Gated MLP."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class QwenBlock(Block):
    """One layer.

    Args:
        bias: whether queries, keys and values have one.
        out_bias: whether attention's output has one.
        head_norms: whether each head's queries and keys are normed before rotation, as in Qwen3.
        mlp: the second half behind its norm; None is a gated MLP of `intermediate_size`.
    """

    def __init__(
        self,
        layer: int,
        config: Config,
        bias: bool = True,
        out_bias: bool = False,
        head_norms: bool = False,
        mlp: nn.Module | None = None,
    ):
        heads, kv_heads, _ = head_sizes(config)
        super().__init__(layer, heads, kv_heads)
        width, self.head_norms = config.count("hidden_size"), head_norms
        self.input_layernorm = RMSNorm(width, norm_eps(config))
        self.self_attn = QwenAttention(config, bias, out_bias, head_norms)
        self.post_attention_layernorm = RMSNorm(width, norm_eps(config))
        self.mlp = QwenMLP(width, config.count("intermediate_size")) if mlp is None else mlp

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attention = self.input_layernorm(x), self.self_attn
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def before_rotation(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.head_norms:
            return q, k
        return self.self_attn.q_norm(q), self.self_attn.k_norm(k)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.self_attn.o_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.post_attention_layernorm(x))


class Qwen(Transformer):
    """What the families share; each says in `layer` what its layers are."""

    layers_field, tied_field = "num_hidden_layers", "tie_word_embeddings"
    layer_names = "model.layers."
    embedding_name = "model.embed_tokens.weight"
    head_name = "lm_head.weight"
    partial_rotation = False  # whether a configuration may rotate a part of each head only

    def assemble(self) -> None:
        """Everything that has weights, by the model's `config`."""
        config, width = self.config, self.config.count("hidden_size")
        _, self.num_kv_heads, self.head_dim = head_sizes(config)
        self.rope_theta = rope_theta(config, self.partial_rotation)
        if self.partial_rotation:
            self.rotary_dim = rotary_dim(config, self.head_dim)
        self.max_length = config.count_or_none("max_position_embeddings")
        if self.block_field is not None:
            self.block_length = config.count(self.block_field, self.published_block)
        vocab = config.count("vocab_size", most=LARGEST_VOCABULARY)
        layers = [self.layer(i) for i in range(config.count("num_hidden_layers"))]
        self.model = nn.ModuleDict(
            {
                self.embedding_name.split(".")[1]: nn.Embedding(vocab, width),
                "layers": nn.ModuleList(layers),
                "norm": RMSNorm(width, norm_eps(config)),
            }
        )
        self.tied = config.flag("tie_word_embeddings")
        if not self.tied:
            self.lm_head = nn.Linear(width, vocab, bias=False)

    def layer(self, index: int) -> Block:
        raise NotImplementedError

    @classmethod
    def load_tokenizer(cls, folder: Path) -> Any:
        """tokenizer.json, or else Qwen2's vocabulary and merges, whatever code comes with them.

        Added tokens of the latter come from tokenizer_config.json.
        """
        from transformers import Qwen2Tokenizer

        whole, parts = folder / "tokenizer.json", folder / "vocab.json"
        if whole.is_file() or not parts.is_file():
            return super().load_tokenizer(folder)
        tokenizer = Qwen2Tokenizer.from_pretrained(folder)
        check_added_tokens(folder, tokenizer)
        return tokenizer

    @property
    def embedding(self) -> nn.Embedding:
        return self.model[self.embedding_name.split(".")[1]]  # type: ignore[return-value]

    @property
    def blocks(self) -> Iterable[Block]:
        return self.model["layers"]  # type: ignore[return-value]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.model["norm"](x)

    def head(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight) if self.tied else self.lm_head(hidden)


def head_sizes(config: Config) -> tuple[int, int, int]:
    """Query heads, key/value heads and a head's size, which need not make up the width."""
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads)
    config.require(heads % kv_heads == 0, "num_key_value_heads", f"it must divide {heads} heads")
    size = config.count("head_dim", config.count("hidden_size") // heads)
    config.require(size % 2 == 0, "head_dim", "it must be even for rotation")
    return heads, kv_heads, size


def norm_eps(config: Config) -> float:
    return config.number("rms_norm_eps", 1e-6)


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
