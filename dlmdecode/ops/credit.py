"""`credit`: trace credits (CreditDecoding, arXiv 2510.06133), then `propose`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops.arguments import check_device, check_tensor, real
from dlmdecode.ops.extension import register
from dlmdecode.ops.propose import checked, decide, needed, noise_of, scattered
from dlmdecode.ops.propose import fake as fake_proposal
from dlmdecode.ops.proposed import Proposed, check_at_once


def credit(
    logits: Tensor,
    ids: Tensor,
    credits: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    need: Tensor | None = None,
    exclude: int = -1,
    temperature: float = 0.0,
    seed: int = 0,
    stream: Tensor | None = None,
    position: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    wait: bool = True,
) -> tuple[Proposed, Tensor, Tensor]:
    """Trace credits, then `propose`: still one read of each row.

    ids: int64 (N, T), the tokens that hold credit in each row, distinct, -1 in empty slots.
    credits: float32 (N, T). Both -1 and 0 everywhere at the start of a block.

    All credits of a needed row decay by `beta`; the best token gains its probability to the power
    of `gamma`, in its slot, else in the first empty one, else in place of the smallest credit. Then
    `propose` decides on logits + `alpha` log(1 + credit). As many slots as a block has steps make
    this equal to a credit for every token. Other arguments, errors and the first result as in
    `propose`; also returns the new ids and credits. Rows that are not needed or have no answer keep
    theirs. Credits that are negative, NaN or infinite are refused on the CPU.
    """
    first, *rest = checked(logits, need, exclude, temperature, seed, stream, position, dtype)
    check_credits(ids, credits, logits)
    if wait:
        check_sizes(credits)
    rates = {"alpha": real("alpha", alpha), "beta": real("beta", beta)}
    rates["gamma"] = real("gamma", gamma)
    for name, value in rates.items():
        require(value >= 0, name, value, "give a finite number, 0 or more")
    state = (ids.contiguous(), credits.contiguous())
    *found, ids, credits = run(first, *state, *rates.values(), *rest)
    proposed = Proposed(*found)
    if wait:
        check_at_once(proposed.token)
    return proposed, ids, credits


def check_credits(ids: Any, credits: Any, logits: Tensor) -> None:
    """The slots, without a look at their numbers."""
    for name, value in (("ids", ids), ("credits", credits)):
        check_tensor(name, value)
        check_device(name, value, logits)
    slots = ids.dim() == 2 and len(ids) == len(logits) and ids.shape[1] > 0
    require(slots, "ids", ids, "give (rows, slots)")
    require(ids.dtype == torch.int64, "ids", ids, "give int64")
    require(credits.shape == ids.shape, "credits", credits, f"give shape {tuple(ids.shape)} of ids")
    require(credits.dtype == torch.float32, "credits", credits, "give float32")


def check_sizes(credits: Tensor) -> None:
    """The numbers of the slots, on the CPU only, where that waits for nothing."""
    if credits.device.type == "cpu" and not torch.compiler.is_compiling() and credits.numel():
        low, high = credits.aminmax()
        known = bool(low >= 0) and bool(high < torch.inf)
        require(known, "credits", float(low if not low >= 0 else high), "give 0 or more each")


def reference(
    logits: Tensor,
    ids: Tensor,
    credits: Tensor,
    alpha: float,
    beta: float,
    gamma: float,
    need: Tensor | None,
    exclude: int,
    temperature: float,
    seed: int,
    stream: Tensor | None,
    position: Tensor | None,
    float64: bool,
) -> tuple[Tensor, ...]:
    rows, z = needed(logits, need, float64)
    base = decide(z, exclude, 0.0, None)
    new_ids, new_credits = credited(ids[rows], credits[rows], base, beta, gamma)
    boost = (alpha * new_credits.log1p()).to(z.dtype)
    z.scatter_add_(1, new_ids.clamp(min=0), boost.where(new_ids >= 0, 0))
    noise = noise_of(logits, rows, temperature, seed, stream, position)
    found = decide(z, exclude, temperature, noise)
    return (
        *scattered(found, rows, len(logits), float64),
        ids.index_copy(0, rows, new_ids),
        credits.index_copy(0, rows, new_credits),
    )


def credited(
    ids: Tensor, credits: Tensor, base: Proposed, beta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Slots (N, T) after one step: all decay, the base's best token gains probability ** gamma.

    A token without a slot takes the first empty one, or the smallest credit's where all are taken.
    """
    before = credits
    credits = credits.masked_fill(ids < 0, 0) * beta
    top = base.token[:, None]
    found = ids == top
    rank = torch.where(ids < 0, -1.0, credits).masked_fill(found, -2.0)
    slot = rank.argmin(1, keepdim=True)
    held = credits.gather(1, slot).where(found.gather(1, slot), 0)
    gain = base.log_prob.float().exp().pow(gamma)[:, None]
    valid = top >= 0
    ids = torch.where(valid, ids.scatter(1, slot, top), ids)
    return ids, torch.where(valid, credits.scatter(1, slot, held + gain), before)


def fake(logits, ids, credits, alpha, beta, gamma, *rest):
    return *fake_proposal(logits, *rest), torch.empty_like(ids), torch.empty_like(credits)


run = register("credit", reference, fake)
