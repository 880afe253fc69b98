"""A mixture of experts in the place of a layer's gated MLP, as in OLMoE (arXiv 2409.02060).

Shapes: **T** tokens, **E** experts, **K** experts of a token, **D** width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlmdecode.models.qwen import QwenMLP


class Experts(nn.Module):
    """Gated MLPs and the router that says which of them compute a token.

    A family that routes by another rule overrides `route`.

    Args:
        width: D.
        inner: the hidden width of an expert.
        num_experts: E.
        per_token: K, at most E.
        normalised: whether the weights of a token's experts are scaled to sum to 1.
    """

    def __init__(
        self, width: int, inner: int, num_experts: int, per_token: int, normalised: bool = False
    ):
        super().__init__()
        self.per_token, self.normalised = per_token, normalised
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(QwenMLP(width, inner) for _ in range(num_experts))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (T, K) float32 and experts (T, K) int64 of tokens `x` (T, D)."""
        probability = self.gate(x).float().softmax(-1)
        weight, chosen = probability.topk(self.per_token)
        if self.normalised:
            weight = weight / weight.sum(-1, keepdim=True)
        return weight, chosen

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum of each token's experts, (…, D) as `x`."""
        tokens = x.reshape(-1, x.shape[-1])
        weight, chosen = self.route(tokens)
        order = chosen.flatten().argsort(stable=True)  # tokens of expert 0, then of expert 1, …
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        parts = tokens[order // self.per_token].split(counts)
        done = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        computed = torch.empty_like(done)
        computed[order] = done
        mixed = weight.to(x.dtype)[:, None] @ computed.unflatten(0, chosen.shape)
        return mixed.reshape(x.shape)
