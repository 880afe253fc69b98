"""Muon: momentum whose matrices are made orthogonal (Keller Jordan, 2024), in float32.

`torch.optim.Muon` multiplies in bfloat16, which a CPU without bfloat16 units only imitates, so that
it takes much of a small model's step there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic whose slope at zero is steepest


class Muon(torch.optim.Optimizer):
    """Moves matrices by their orthogonal momentum, as far as AdamW would (arXiv 2502.16982).

    Args:
        matrices: float32, of two dimensions each.
        lr: the learning rate, of which AdamW's would be a good one.
        weight_decay: share of a weight that goes at each step, times `lr`.
        momentum: of Nesterov's kind.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        usual = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(matrices, usual)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Take a step; `closure` is not for this optimizer."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(mean, group["momentum"]))
                reach = 0.2 * math.sqrt(max(matrix.shape))  # AdamW's root mean square
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * reach)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest matrix whose singular values are 1, by Newton and Schulz."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
