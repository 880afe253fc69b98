"""How likely a masked diffusion model finds a text: the Monte Carlo bound of LLaDA.

The bound (arXiv 2502.09992, eq. 6) is an average over random masks, so it carries noise.

Shapes: **N** masks, **n** scored tokens, **C** contexts, **D** width, **V** vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIONS = 512  # whose logits are in memory at once

Work = TypeVar("Work")


@dataclass
class Rows:
    """How many rows a call of the model has; where `adapts`, half as many once memory runs out."""

    size: int
    adapts: bool = False

    def run(self, work: Callable[[Any], Work], rows: Any) -> Iterator[tuple[int, Work]]:
        """`work` on every `size` of `rows` (a tensor or a list), each with where its rows begin."""
        at = 0
        while at < len(rows):
            part = rows[at : at + self.size]
            try:
                done = work(part)
            except torch.OutOfMemoryError:
                if not self.halve(len(part)):
                    raise
                continue
            yield at, done
            at += len(part)

    def halve(self, num: int) -> bool:
        """Go down to half of `num` rows, for which memory ran out; whether that is possible."""
        if not self.adapts or num == 1:
            return False
        self.size = num // 2
        torch.cuda.empty_cache()
        return True


@dataclass(frozen=True)
class Likelihood:
    """Scores token ids under `model`, with `num_masks` masks that `seed` draws.

    `cfg_scale` above 0 guides the logits away from those behind a masked prompt, as in `generate`.
    """

    model: Any
    rows: Rows
    num_masks: int = 128
    seed: int = 0
    cfg_scale: float = 0.0

    @torch.inference_mode()
    def bound(self, prompt: Sequence[int], target: Sequence[int]) -> float:
        """Mean over the masks of n/m · Σ log p of the m masked tokens of n.

        The numbers of masked tokens are spread evenly over 1…n, which lowers the variance.
        """
        n = len(target)
        if n == 0:
            return 0.0
        own = torch.tensor(target, dtype=torch.int64, device=self.model.device)
        generator, cpu = torch.Generator("cpu").manual_seed(self.seed), torch.device("cpu")
        first = torch.randint(n, (), generator=generator, device=cpu)
        evenly = torch.arange(self.num_masks, device=cpu) * n // self.num_masks
        counts = (first + evenly) % n + 1
        drawn = torch.rand(self.num_masks, n, generator=generator, device=cpu, dtype=torch.float32)
        ranks = drawn.argsort(1)
        masked = (ranks < counts[:, None]).to(own.device)

        def total(masked: Tensor) -> float:
            hidden = self.hidden(prompt, own.masked_fill(masked, self.model.mask_id))[:, masked]
            answers, share = own.expand_as(masked)[masked], (n / masked.sum(1).float())[:, None]
            some = zip(hidden.split(POSITIONS, 1), answers.split(POSITIONS), strict=True)
            log_prob = torch.cat(
                [-F.cross_entropy(self.logits(h), a, reduction="none") for h, a in some]
            )
            return float((log_prob * share.expand_as(masked)[masked]).sum())

        return sum(value for _, value in self.rows.run(total, masked)) / self.num_masks

    def hidden(self, prompt: Sequence[int], canvas: Tensor) -> Tensor:
        """States (C, N, n, D) of `canvas` (N, n) after the prompt, and after a masked one."""
        contexts = [list(prompt)]
        if self.cfg_scale > 0:
            contexts.append([self.model.mask_id] * len(prompt))
        return torch.stack([self.behind(context, canvas) for context in contexts])

    def behind(self, context: list[int], canvas: Tensor) -> Tensor:
        rows, n = canvas.shape
        before = torch.tensor(context, dtype=torch.int64, device=canvas.device)
        tokens = torch.cat([before.expand(rows, -1), canvas], 1)
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        hidden = self.model.encode(tokens, place, self.model.attention(place, place))
        at = place[:, -n:] - self.model.shift
        return hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (M, V), fp32, of states (C, M, D)."""
        given, *free = self.model.head(hidden).float()
        return free[0] + (1 + self.cfg_scale) * (given - free[0]) if free else given

    @torch.inference_mode()
    def is_greedy(self, prompt: Sequence[int], target: Sequence[int]) -> bool:
        """Whether filling the most confident position first, one at a time, writes `target`."""
        own = torch.tensor(target, dtype=torch.int64, device=self.model.device)
        canvas = torch.full_like(own, self.model.mask_id)
        for _ in range(len(own)):
            log_prob, token = (
                self.logits(self.hidden(prompt, canvas[None])[:, 0]).log_softmax(-1).max(-1)
            )
            log_prob[canvas != self.model.mask_id] = -torch.inf
            at = log_prob.argmax()
            if token[at] != own[at]:
                return False
            canvas[at] = own[at]
        return True


def windows(
    prompt: list[int],
    target: list[int],
    limit: int | None,
    shorten: Callable[[list[int], int], list[int]],
) -> Iterator[tuple[list[int], list[int]]]:
    """`target` in pieces that fit `limit` positions, each with as much before it as fits too.

    Every token is scored once. A piece that fills the window has one token before it, if there is
    one; the last piece has a full window. `shorten(ids, room)` leaves out the beginning.
    """
    at = 0
    while at < len(target):
        before = prompt + target[:at]
        limit = limit or len(before) + len(target)
        piece = target[at : at + max(limit - min(len(before), 1), 1)]
        yield shorten(before, limit - len(piece)), piece
        at += len(piece)
