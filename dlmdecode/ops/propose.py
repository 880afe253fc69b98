"""`propose`: a token for each row of logits, and how sure it is."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.checks import refuse, require
from dlmdecode.ops.arguments import check_logits, check_vector, dense, dense_rows, integer, real
from dlmdecode.ops.extension import register
from dlmdecode.ops.philox import gumbel
from dlmdecode.ops.proposed import BAD, UNNEEDED, Proposed, check_at_once


def propose(
    logits: Tensor,
    *,
    need: Tensor | None = None,
    exclude: int = -1,
    temperature: float = 0.0,
    seed: int = 0,
    stream: Tensor | None = None,
    position: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    wait: bool = True,
) -> Proposed:
    """A token for each row of logits, and how sure it is: one read of each row.

    logits: (N, V) float32, bfloat16, float16 or float64.
    need: bool (N,), rows to read; the others get token -1, log-probability -inf, and 0.
    exclude: an id never proposed that stays in the normaliser (the mask); -1 for none.
    temperature: above 0, the token is the argmax of logit / temperature + Gumbel noise, which
        depends only on `seed` (64 bits), `stream` and `position` (int64 (N,); default: row index
        and 0) and the token id: equal on every device, in every batch, with any number of threads.
    dtype: of the results and the sums, torch.float32 or torch.float64.

    Returns `Proposed`: token int64 (the lowest of equals), its log-probability under the untempered
    softmax (precise also near 0), best minus second best logit, and entropy in nats; each (N,).

    Raises ValueError for arguments that do not fit, and on the CPU for rows that hold NaN or +inf
    or leave nothing to propose. On other devices such rows get token -2, for `check` to find when
    the caller can wait for the device.
    """
    arguments = checked(logits, need, exclude, temperature, seed, stream, position, dtype)
    proposed = Proposed(*run(*arguments))
    if wait:
        check_at_once(proposed.token)
    return proposed


def checked(
    logits: Tensor,
    need: Tensor | None,
    exclude: int,
    temperature: float,
    seed: int,
    stream: Tensor | None,
    position: Tensor | None,
    dtype: torch.dtype,
) -> tuple:
    """The arguments as the schema wants them, after every check that looks at no number."""
    check_logits(logits)
    vocabulary = logits.shape[1]
    exclude, seed = integer("exclude", exclude), integer("seed", seed)
    temperature = real("temperature", temperature)
    if not -1 <= exclude < vocabulary:
        refuse("exclude", exclude, f"give an id below {vocabulary}, or -1")
    usable = temperature == 0 or temperature >= 1e-6
    require(usable, "temperature", temperature, "give 0, or a finite number of at least 1e-6")
    known = dtype in (torch.float32, torch.float64)
    require(known, "dtype", dtype, "give torch.float32 or float64")
    check_vector("need", need, torch.bool, logits)
    check_vector("stream", stream, torch.int64, logits)
    check_vector("position", position, torch.int64, logits)
    return (
        dense_rows(logits),
        dense(need),
        exclude,
        temperature,
        (seed + 2**63) % 2**64 - 2**63,  # the schema's integers are signed
        dense(stream),
        dense(position),
        dtype == torch.float64,
    )


def reference(
    logits: Tensor,
    need: Tensor | None,
    exclude: int,
    temperature: float,
    seed: int,
    stream: Tensor | None,
    position: Tensor | None,
    float64: bool,
) -> tuple[Tensor, ...]:
    rows, z = needed(logits, need, float64)
    noise = noise_of(logits, rows, temperature, seed, stream, position)
    found = decide(z, exclude, temperature, noise)
    return scattered(found, rows, len(logits), float64)


def needed(logits: Tensor, need: Tensor | None, float64: bool) -> tuple[Tensor, Tensor]:
    """The rows that are needed, and their logits as a new tensor in the arithmetic's dtype."""
    rows = torch.arange(len(logits), device=logits.device) if need is None else need.nonzero()[:, 0]
    wide = torch.promote_types(torch.float64 if float64 else torch.float32, logits.dtype)
    return rows, logits[rows].to(wide, copy=True)


def noise_of(
    logits: Tensor,
    rows: Tensor,
    temperature: float,
    seed: int,
    stream: Tensor | None,
    position: Tensor | None,
) -> Tensor | None:
    """Gumbel noise of some rows of logits; none at temperature 0."""
    if temperature == 0:
        return None
    stream = torch.arange(len(logits), device=logits.device) if stream is None else stream
    position = torch.zeros_like(stream) if position is None else position
    return gumbel(seed, stream[rows], position[rows], logits.shape[1])


def decide(z: Tensor, exclude: int, temperature: float, noise: Tensor | None) -> Proposed:
    """The proposal of logits (N, V); rows without an answer are marked."""
    if not len(z):
        empty = z.new_empty(0)
        return Proposed(empty.long(), empty, empty, empty)
    allowed = z.clone()
    if exclude >= 0:
        allowed[:, exclude] = -torch.inf
    best, token = allowed.amax(1), allowed.argmax(1)
    margin = best - allowed.scatter(1, token[:, None], -torch.inf).amax(1)
    log_probs, entropy = softmax(z)
    if noise is not None:
        inverse = torch.tensor(1 / temperature, dtype=z.dtype, device=z.device)
        token = (allowed * inverse + noise).argmax(1)
    log_prob = log_probs.gather(1, token[:, None])[:, 0]
    bad = ~(z < torch.inf).all(1) | (best == -torch.inf)
    return Proposed(
        token.masked_fill(bad, BAD),
        log_prob.masked_fill(bad, -torch.inf),
        margin.masked_fill(bad, 0),
        entropy.masked_fill(bad, 0),
    )


def softmax(z: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, V) of rows, precise near 0, and their entropies (N,) in nats."""
    best, pivot = z.max(dim=1, keepdim=True)
    weight = (z - best).exp().scatter(1, pivot, 0)
    log_probs = (z - best) - weight.sum(1, keepdim=True).log1p()
    return log_probs, -(log_probs.exp() * log_probs.clamp(min=-1e30)).sum(1)


def scattered(found: Proposed, rows: Tensor, count: int, float64: bool) -> tuple[Tensor, ...]:
    """Put the proposals of `rows` among `count` rows, the others marked as not needed."""
    number = torch.float64 if float64 else torch.float32
    empties = (UNNEEDED, -torch.inf, 0, 0)
    kinds = (torch.int64, number, number, number)
    return tuple(
        torch.full((count,), empty, dtype=kind, device=rows.device).index_copy(
            0, rows, value.to(kind)
        )
        for value, empty, kind in zip(found, empties, kinds, strict=True)
    )


def fake(logits: Tensor, need, exclude, temperature, seed, stream, position, float64):
    number = torch.float64 if float64 else torch.float32
    kinds = (torch.int64, number, number, number)
    return tuple(logits.new_empty(logits.shape[0], dtype=kind) for kind in kinds)


run = register("propose", reference, fake)
