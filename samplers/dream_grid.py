"""Dream's time grid: how many masks a block's steps fill."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dlmdecode.decoding.canvas import Canvas


@lru_cache(maxsize=1024)
def grid_quotas(masks: int, steps: int, eps: float) -> tuple[int, ...]:
    """Tokens to commit at each step that commits any, for a block that opens with `masks` masks.

    With one token per step the published grid commits nothing at the first step and two at the
    last; steps that would commit nothing are left out here, since they repeat the same forward.
    """
    time = torch.linspace(1, eps, steps + 1, dtype=torch.float32, device="cpu")
    quotas = []
    for i in range(steps):
        share = 1 - time[i + 1] / time[i]
        count = masks if i == steps - 1 else int(masks * share)
        masks -= count
        if count:
            quotas.append(count)
    return tuple(quotas)


@dataclass(frozen=True)
class GridQuota:
    """How many tokens of the block Dream's time grid commits at this step; `steps` per block."""

    steps: int
    eps: float = 1e-3

    def __call__(self, canvas: Canvas) -> Tensor:
        rows = zip(canvas.block_masks.tolist(), canvas.block_step.tolist(), strict=True)
        counts = []
        for masks, step in rows:
            quotas = grid_quotas(masks, self.steps, self.eps)
            counts.append(quotas[step] if step < len(quotas) else masks)
        return torch.tensor(counts, device=canvas.lo.device)
