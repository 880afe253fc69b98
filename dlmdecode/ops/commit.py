"""`commit`: the proposals that a rule selects, written into the canvas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import refuse, require
from dlmdecode.ops.arguments import check_device, check_tensor, dense, integer, real
from dlmdecode.ops.extension import register

# Parameters of each rule, in the order of `Rule` in csrc/commit.h.
RULES = {
    "topk": ("quota",),
    "threshold": ("threshold",),
    "factor": ("factor",),
    "frechet": ("delta",),
    "entropy_bound": ("gamma", "entropy"),
    "relaxed": ("threshold", "relaxed", "radius"),
}
LEVELS = ("threshold", "factor", "delta", "gamma")


def commit(
    tokens: Tensor,
    proposed: Tensor,
    confidence: Tensor,
    lo: Tensor,
    hi: Tensor,
    mask_id: int,
    rule: str,
    *,
    quota: Tensor | None = None,
    threshold: float | None = None,
    factor: float | None = None,
    delta: float | None = None,
    gamma: float | None = None,
    entropy: Tensor | None = None,
    relaxed: float | None = None,
    radius: int | None = None,
    minimum: int = 1,
) -> Tensor:
    """Write the proposals a rule selects into masked positions, in place: one launch, no wait.

    tokens: int64 (B, L), changed. proposed: int64 (B, L); negative ones are never written.
    confidence: (B, L) float32 or float64; NaN counts as -inf. lo, hi: int64 (B,): positions
    lo <= i < hi that hold `mask_id` are eligible. Of equals the lowest position is more confident.

    rule, over eligible positions by falling confidence c(1) >= c(2) >= ...:
        "topk": the first `quota` (int64 (B,)).
        "threshold": c >= `threshold` (Fast-dLLM, arXiv 2505.22618).
        "factor": the n first, n largest with (n + 1) (1 - c(n)) < `factor` (same).
        "frechet": max(0, sum of c(1..n) - (n - 1)) - (1 - c(n)) > `delta` (arXiv 2606.02955).
        "entropy_bound": sum of entropies(1..n) less the largest <= `gamma`, `entropy` float32
            (B, L) (EB-Sampler, arXiv 2505.24857).
        "relaxed": c >= `threshold`, or c >= `relaxed` no further than `radius` from an eligible
            position with c >= `threshold` (LocalLeap, arXiv 2510.07081).
    minimum: the most confident that are written whatever the rule says, where there are as many.

    Returns how many were written, int64 (B,). Raises ValueError for arguments that do not fit.
    """
    levels = {"threshold": threshold, "factor": factor, "delta": delta, "gamma": gamma}
    others = {"quota": quota, "entropy": entropy, "relaxed": relaxed, "radius": radius}
    number, *numbers = numbered(rule, levels | others)
    mask_id, minimum = integer("mask_id", mask_id), integer("minimum", minimum)
    require(minimum >= 0, "minimum", minimum, "give 0 or more")
    check_canvas(tokens, proposed, confidence, lo, hi)
    check_rule(tokens, quota, entropy)
    canvas = (tokens, *(one.contiguous() for one in (proposed, confidence, lo, hi)))
    return run(*canvas, mask_id, number, *numbers, dense(quota), dense(entropy), minimum)


def numbered(rule: str, given: dict[str, Any]) -> tuple[int, float, float, int]:
    """The rule's number, its level, `relaxed` and `radius`; it gets its parameters, no others."""
    if not (isinstance(rule, str) and rule in RULES):
        refuse("rule", rule, f"give one of {', '.join(RULES)}")
    wanted = RULES[rule]
    for name, value in given.items():
        fits = (value is not None) == (name in wanted)
        if not fits:
            refuse(name, value, f"give exactly {', '.join(wanted)} with rule {rule!r}")
    levels = [real(name, given[name]) for name in LEVELS if given[name] is not None]
    radius = 0 if given["radius"] is None else integer("radius", given["radius"])
    require(radius >= 0, "radius", radius, "give 0 or more")
    relaxed = 0.0 if given["relaxed"] is None else real("relaxed", given["relaxed"])
    return list(RULES).index(rule), levels[0] if levels else 0.0, relaxed, radius


def check_canvas(tokens: Any, proposed: Any, confidence: Any, lo: Any, hi: Any) -> None:
    check_tensor("tokens", tokens)
    usable = tokens.dim() == 2 and tokens.dtype == torch.int64
    require(usable, "tokens", tokens, "give int64 (rows, length)")
    dense_enough = tokens.stride(1) == 1 or tokens.shape[1] <= 1
    require(dense_enough, "tokens", tokens, "give rows that are dense in memory")
    check_matrix("proposed", proposed, tokens, torch.int64)
    check_matrix("confidence", confidence, tokens, torch.float32, torch.float64)
    check_bounds("lo", lo, tokens)
    check_bounds("hi", hi, tokens)


def check_rule(tokens: Tensor, quota: Tensor | None, entropy: Tensor | None) -> None:
    if quota is not None:
        check_bounds("quota", quota, tokens)
    if entropy is not None:
        check_matrix("entropy", entropy, tokens, torch.float32)


def check_matrix(name: str, value: Any, tokens: Tensor, *dtypes: torch.dtype) -> None:
    check_tensor(name, value)
    if not (value.shape == tokens.shape and value.dtype in dtypes):
        kinds = " or ".join(map(str, dtypes))
        refuse(name, value, f"give {kinds} {tuple(tokens.shape)} like tokens")
    check_device(name, value, tokens)


def check_bounds(name: str, value: Any, tokens: Tensor) -> None:
    check_tensor(name, value)
    if not (value.shape == tokens.shape[:1] and value.dtype == torch.int64):
        refuse(name, value, f"give int64 ({len(tokens)},)")
    check_device(name, value, tokens)


def reference(
    tokens: Tensor,
    proposed: Tensor,
    confidence: Tensor,
    lo: Tensor,
    hi: Tensor,
    mask_id: int,
    rule: int,
    level: float,
    relaxed: float,
    radius: int,
    quota: Tensor | None,
    entropy: Tensor | None,
    minimum: int,
) -> Tensor:
    name = list(RULES)[rule]
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (position >= lo[:, None]) & (position < hi[:, None])
    eligible = (tokens == mask_id) & inside & (proposed >= 0)
    sure = confidence.masked_fill(~eligible | confidence.isnan(), -torch.inf)
    order = sure.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, (~eligible).gather(1, order).long().argsort(dim=1, stable=True))
    if quota is None:
        quota = passing(name, level, sure.gather(1, order), order, entropy)
    length = quota.clamp(min=minimum).minimum(eligible.sum(1))
    taken = torch.zeros_like(eligible).scatter(1, order, position < length[:, None])
    if name == "relaxed":
        anchor = sure >= rounded(level, sure)
        width = 2 * radius + 1
        near = torch.nn.functional.max_pool1d(anchor.double()[:, None], width, 1, radius)[:, 0] > 0
        taken |= eligible & (anchor | (near & (sure >= rounded(relaxed, sure))))
    tokens.copy_(torch.where(taken, proposed, tokens))
    return taken.sum(1)


def passing(rule: str, level: float, sure: Tensor, order: Tensor, entropy: Tensor | None) -> Tensor:
    """How many of the most confident positions (B, L), in `order`, a rule takes: (B,)."""
    rank = torch.arange(1, sure.shape[1] + 1, device=sure.device)
    p = sure.double()
    if rule == "threshold":
        passes = sure >= rounded(level, sure)
    elif rule == "factor":
        passes = (rank + 1) * (1 - p) < level
    elif rule == "frechet":
        passes = (p.cumsum(1) - (rank - 1)).clamp(min=0) - (1 - p) > level
    elif rule == "entropy_bound":
        assert entropy is not None
        nats = entropy.gather(1, order).double()
        passes = nats.cumsum(1) - nats.cummax(1).values <= level
    else:
        passes = torch.zeros_like(sure, dtype=torch.bool)
    return passes.long().cumprod(1).sum(1)


def rounded(level: float, sure: Tensor) -> float:
    """Thresholds are compared in the precision of the confidence."""
    return torch.tensor(level, dtype=sure.dtype).item()


def fake(tokens, *rest):
    return tokens.new_empty(tokens.shape[0])


run = register("commit", reference, fake)
