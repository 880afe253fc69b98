"""Attention rollout (arXiv 2005.00928): what a forward looks at, followed through its layers."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.attended import Looks
from dlmdecode.decoding.positions import Scattered
from dlmdecode.models.protocol import KeyValueHook, attention_weights


class Rollout(Looks):
    """Follows attention through the layers, from each position to each.

    Half of what a layer gives a query is its own, half is what it looks at, on average over the
    heads; a position that is no query stays itself.
    """

    def __init__(self, mix: KeyValueHook, query: Scattered):
        super().__init__(mix)
        self.query = query
        length = query.where.shape[1]
        one = torch.eye(length, dtype=torch.float32, device=query.at.device)
        self.total = one.expand(len(query.at), -1, -1)

    def see(self, layer: int, queries: Tensor, keys: Tensor, attend: Tensor | None) -> None:
        looks = attention_weights(queries, keys, attend).mean(1)
        total = self.total.to(looks.device)
        index = self.query.at.to(looks.device)[..., None].expand_as(looks)
        own = total.gather(1, index)
        some = (self.query.count > 0).to(looks.device)[
            :, None, None
        ]  # short rows repeat their last
        self.total = total.scatter(1, index, torch.where(some, (looks @ total + own) / 2, own))

    def mass(self) -> Tensor:
        return self.total.sum(1)
