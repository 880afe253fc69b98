"""What the model would write: a token for each position of the canvas, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.positions import Positions
from dlmdecode.ops import Proposed


@dataclass
class Proposal:
    """What the model would write at each position and how sure it is; all (B, L).

    A forward overwrites the entries it computed, the others keep their last value.
    """

    token: Tensor  # int64, the best token (or the sampled one); -2 where logits have no answer
    prob: Tensor  # float64, its probability
    margin: Tensor  # float32, logit gap between best and second best
    entropy: Tensor  # float32, nats

    def take(self, index: Tensor) -> Proposal:
        """Rows `index`, repeats allowed."""
        return Proposal(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, positions: Positions, need: Tensor, new: Proposed) -> None:
        """Overwrite `positions` where `need`; it and `new` hold (B, positions.width) values."""
        kept = (self.token, self.prob, self.margin, self.entropy)
        margin, entropy = new.margin, new.entropy
        if margin.dtype != torch.float32:
            margin, entropy = margin.float(), entropy.float()
        fresh = (new.token, new.log_prob.double().exp(), margin, entropy)
        put = ops.put(kept, positions.at, need & positions.real, fresh)
        self.token, self.prob, self.margin, self.entropy = put
