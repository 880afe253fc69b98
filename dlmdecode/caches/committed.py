"""The exact cache of block-causal models: what is committed is never computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.caches.base import Recompute, gather_states, require_hook
from dlmdecode.caches.groups import join
from dlmdecode.caches.registry import register_cache
from dlmdecode.caches.store import Store, nothing
from dlmdecode.caches.view import attention_mask
from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward, Headed, Work
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.models.protocol import Denoiser


@register_cache("block", paper="Block Diffusion (arXiv 2503.09573)", recorded=("sdar",))
class CommittedCache(Headed):
    """Keep the blocks that are finished, compute the open one. Exact, for block-causal models.

    A block of the model's is finished when the text before the open block covers it. It is computed
    once more with its final tokens, in the forward that opens the next block, and its keys and
    values are kept by `rows.row`. No position sees a later block, so that a forward ends with the
    last block whose logits are wanted, and what it computes is what `cache="none"` gives.

    Raises `ValueError` for a model without a key/value hook, and for one with full attention.
    """

    slides = None

    def __init__(self, model: Denoiser):
        require_hook(model, "block")
        fix = "with full attention no block is ever final: use 'prefix' or 'dual', or 'none'"
        require(model.block_length is not None, "cache", "block", fix)
        self.model, self.work = model, Work()
        self.block: int = model.block_length or 0
        self.kept = nothing(1, torch.int64)  # (R,) positions that the store holds
        self.store = Store()

    def states(self, rows: Canvas, wanted: Positions) -> tuple[Tensor, Positions]:
        self.begin(rows)
        kept, final = self.kept[rows.row], self.final(rows)
        due = final > kept  # they have more to compute, and the others need not wait
        groups = [index.nonzero()[:, 0] for index in (due, ~due)]
        self.work.refreshes += len(groups[0])
        parts = [
            self.compute(rows.take(index), wanted.take(index), kept[index], final[index])
            for index in groups
            if len(index)
        ]
        return parts[0] if len(parts) == 1 else join(parts, torch.cat(groups).argsort())

    def begin(self, rows: Canvas) -> None:
        """Room for these rows; of new ones nothing is kept yet."""
        self.store.fit(rows)
        self.kept = self.store.room(self.kept, rows)
        self.kept[rows.row[rows.nfe == 0]] = 0

    def final(self, rows: Canvas) -> Tensor:
        """How many of each row's positions, in whole blocks, never change again, (N,)."""
        written = torch.where(rows.block_full & (rows.branch == 0), rows.hi, rows.lo)
        return written // self.block * self.block

    def compute(
        self, rows: Canvas, wanted: Positions, kept: Tensor, final: Tensor
    ) -> tuple[Tensor, Positions]:
        """States behind the first `kept` (N,) positions; then the first `final` (N,) are kept."""
        shift, block = self.model.shift, self.block
        lo = torch.minimum(kept, torch.maximum(wanted.lo, kept) - shift).clamp(min=0)
        hi = torch.minimum(-(-torch.maximum(wanted.hi, final) // block) * block, rows.stop)
        window = Span(lo, hi)
        tokens = rows.tokens.gather(1, window.at)
        self.work.add(tokens)
        length = int(hi.max())
        attend = attention_mask(self.model, rows, window.at, length)
        mix = self.store.mixing(rows, window.at, length)  # what is not final is computed anew
        hidden = self.model.encode(tokens, window.at, attend, mix)
        own = rows.branch == 0
        self.kept[rows.row[own]] = final[own]
        wanted = wanted.within(lo + shift, hi)
        return gather_states(hidden, wanted.at - shift - lo[:, None]), wanted


@register_cache("auto")
def automatic(model: Denoiser) -> Forward:
    """The best that is exact: `block` where the model allows it, else `none`."""
    allowed = model.block_length is not None and model.supports_cache
    return CommittedCache(model) if allowed else Recompute(model)
