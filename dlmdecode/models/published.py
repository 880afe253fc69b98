"""Configurations of published checkpoints, for their shapes: nothing is loaded by them.

LLaDA2.0-mini's values were read in a copy of its file, most of LLaDA-MoE's and LLaDA2.0-flash's in
public notes. The others are checked by the number of their parameters only: LLaDA and Dream as
published, SDAR, TraDo and DreamReasoner as Qwen3, from which they were made, Fast-dLLM v2 as
Qwen2.5, Stable-DiffCoder as Seed-Coder. iLLaDA's sizes are those of the table on its model card;
its file was not to be had.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]


def qwen(
    kind: str, width: int, inner: int, layers: int, heads: tuple[int, int], **more: Any
) -> Values:
    """Fields under Qwen's names; `heads` are those of queries, and of keys and values."""
    shape = {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "tie_word_embeddings": False,
    }
    return shape | more


def sdar(width: int, inner: int, layers: int, heads: tuple[int, int], **more: Any) -> Values:
    sizes = {"head_dim": 128, "vocab_size": 151936, "rope_theta": 1000000.0, "block_size": 4}
    return qwen("sdar", width, inner, layers, heads, **(sizes | {"mask_token_id": 151669} | more))


LLADA: Values = {
    "model_type": "llada",
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "weight_tying": False,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
}
DREAM = qwen(
    *("Dream", 3584, 18944, 28, (28, 4)),
    vocab_size=152064,
    rope_theta=1000000.0,
    max_position_embeddings=131072,
    mask_token_id=151666,
    eos_token_id=151643,
)
LLADA_MOE = qwen(
    *("llada_moe", 2048, 1024, 16, (16, 16)),
    num_experts=64,
    num_experts_per_tok=8,
    expert_intermediate_size=1024,
    vocab_size=157184,
    rope_theta=50000.0,
    eos_token_id=156892,
)
LLADA2 = qwen(
    *("llada2_moe", 2048, 5120, 20, (16, 4)),
    head_dim=128,
    num_experts=256,
    num_experts_per_tok=8,
    num_shared_experts=1,
    moe_intermediate_size=512,
    n_group=8,
    topk_group=4,
    first_k_dense_replace=1,
    routed_scaling_factor=2.5,
    partial_rotary_factor=0.5,
    rope_theta=600000,
    max_position_embeddings=32768,
    vocab_size=157184,
    pad_token_id=156892,
)
LLADA2_FLASH = LLADA2 | {
    "hidden_size": 4096,
    "intermediate_size": 9216,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "moe_intermediate_size": 1024,
}
DIFFCODER = qwen(
    *("llama", 4096, 14336, 32, (32, 8)),
    architectures=["StableDiffcoderForCausalLM"],
    head_dim=128,
    vocab_size=155136,
    rope_theta=500000.0,
)
ILLADA = qwen(
    *("illada", 4096, 14336, 32, (32, 8)),
    vocab_size=155136,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)
FAST = {"bd_size": 32, "rope_theta": 1000000.0}
REASONER = {"model_type": "Dream", "block_size": 32, "max_position_embeddings": 40960}

PUBLISHED: dict[str, Values] = {
    "LLaDA-8B": LLADA,
    "Dream-7B": DREAM,
    "SDAR-1.7B": sdar(2048, 6144, 28, (16, 8)),
    "SDAR-4B": sdar(2560, 9728, 36, (32, 8)),
    "SDAR-8B": sdar(4096, 12288, 36, (32, 8)),
    "DreamReasoner-8B": sdar(4096, 12288, 36, (32, 8), **REASONER),
    "Fast-dLLM-v2-1.5B": qwen("Fast_dLLM_Qwen", 1536, 8960, 28, (12, 2), vocab_size=151936, **FAST),
    "Fast-dLLM-v2-7B": qwen("Fast_dLLM_Qwen", 3584, 18944, 28, (28, 4), vocab_size=152064, **FAST),
    "iLLaDA-8B": ILLADA,
    "LLaDA-MoE-7B-A1B": LLADA_MOE,
    "LLaDA2.0-mini": LLADA2,
    "LLaDA2.0-flash": LLADA2_FLASH,
    "Stable-DiffCoder-8B": DIFFCODER,
}
