"""A mixture of experts in the place of a layer's gated MLP, as in OLMoE (arXiv 2409.02060).

Shapes: **T** tokens, **E** experts, **K** experts of a token, **D** width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


class BiasedGate(nn.Linear):
    """A router whose bias counts in the choice of experts and not in their weights."""

    def __init__(self, width: int, num_experts: int):
        super().__init__(width, num_experts, bias=False)
        self.expert_bias = nn.Parameter(torch.zeros(num_experts, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (T, E) in float32."""
        return F.linear(x.float(), self.weight.float())


class GroupedExperts(Experts):
    """Experts in groups, of which the best are chosen first (DeepSeek-V3, arXiv 2412.19437).

    An expert's score is the sigmoid of its logit. A group is as good as its two best scores, bias
    included.

    Args:
        groups: they have E // groups experts each.
        chosen_groups: how many of them a token's experts come from.
        scale: what the weights of a token's experts sum to.
        shared: how many experts, as one MLP of their joint width, compute every token.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        num_experts: int,
        per_token: int,
        *,
        groups: int,
        chosen_groups: int,
        scale: float,
        shared: int,
    ):
        super().__init__(width, inner, num_experts, per_token)
        self.groups, self.chosen_groups, self.scale = groups, chosen_groups, scale
        self.gate: BiasedGate = BiasedGate(width, num_experts)
        self.shared_experts = QwenMLP(width, inner * shared) if shared else None

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        score = self.gate(x).sigmoid()
        biased = (score + self.gate.expert_bias).unflatten(1, (self.groups, -1))
        best = biased.topk(min(2, biased.shape[2]), 2).values.sum(2)
        kept = torch.zeros_like(best, dtype=torch.bool)
        kept = kept.scatter(1, best.topk(self.chosen_groups).indices, True)
        chosen = biased.masked_fill(~kept[..., None], -torch.inf).flatten(1).topk(self.per_token)
        weight = score.gather(1, chosen.indices)
        if self.per_token > 1:
            weight = weight / (weight.sum(1, keepdim=True) + 1e-20)
        return weight * self.scale, chosen.indices

    def forward(self, x: Tensor) -> Tensor:
        mixed = super().forward(x)
        return mixed if self.shared_experts is None else mixed + self.shared_experts(x)
