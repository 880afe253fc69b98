"""The public functions: arguments checked, then the extension or the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.ops import reference
from dlmdecode.ops.arguments import (
    RULES,
    Edits,
    check_canvas,
    check_credits,
    check_lattice,
    check_logits,
    check_numbers,
    check_tables,
    checked,
    dense,
    dense_rows,
    flat,
    integer,
    real,
    selection,
)
from dlmdecode.ops.extension import LOADED, is_available
from dlmdecode.ops.reference import BAD, Proposed


def propose(
    logits: Tensor,
    *,
    need: Tensor | None = None,
    exclude: int = -1,
    temperature: float = 0.0,
    seed: int = 0,
    stream: Tensor | None = None,
    position: Tensor | None = None,
    uncond: Tensor | None = None,
    cfg_scale: float = 0.0,
    edits: Edits | None = None,
    dtype: torch.dtype = torch.float32,
) -> Proposed:
    """A token for each row of logits, and how sure it is: one read of each row.

    logits: (N, V) float32, bfloat16, float16 or float64.
    need: bool (N,), rows to read; the others get token -1, log-probability -inf, and 0.
    exclude: an id never proposed that stays in the normaliser (the mask); -1 for none.
    temperature: above 0, the token is the argmax of logit / temperature + Gumbel noise, which
        depends only on `seed` (64 bits), `stream` and `position` (int64 (N,); default: row index
        and 0) and the token id: equal on every device, in every batch, with any number of threads.
    uncond, cfg_scale: logits become u + (1 + cfg_scale) (z - u), and -inf where z is -inf.
    edits: ids int64 (N, T) and values float32 (N, T), added to the logits of those ids; id -1 marks
        an unused slot, -inf bans an id, repeated ids add up.
    dtype: of the results and the sums, torch.float32 or torch.float64.

    Returns `Proposed`: token int64 (the lowest of equals), its log-probability under the untempered
    softmax (precise also near 0), best minus second best logit, and entropy in nats; each (N,).

    Raises ValueError for arguments that do not fit, and on the CPU for rows that hold NaN or +inf
    or leave nothing to propose. On other devices such rows get token -2, for `check` to find when
    the caller can wait for the device.
    """
    arguments = checked(
        logits, need, exclude, temperature, seed, stream, position, uncond, cfg_scale, edits, dtype
    )
    if is_available(logits.device):
        proposed = Proposed(*torch.ops.dlmdecode.propose(*flat(arguments)))
    else:
        proposed = reference.propose(**arguments)
    return settled(proposed)


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
    uncond: Tensor | None = None,
    cfg_scale: float = 0.0,
    edits: Edits | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Proposed, Tensor, Tensor]:
    """Trace credits (CreditDecoding, arXiv 2510.06133), then `propose`: still one read of each row.

    ids: int64 (N, T), the tokens that hold credit in each row, distinct, -1 in empty slots.
    credits: float32 (N, T). Both -1 and 0 everywhere at the start of a block.

    All credits of a needed row decay by `beta`; the best token gains its probability to the power
    of `gamma`, in its slot, else in the first empty one, else in place of the smallest credit. Then
    `propose` decides on logits + `alpha` log(1 + credit). As many slots as a block has steps make
    this equal to a credit for every token. Other arguments, errors and the first result as in
    `propose`; also returns the new ids and credits. Rows that are not needed or have no answer keep
    theirs. Credits that are negative, NaN or infinite are refused on the CPU.
    """
    arguments = checked(
        logits, need, exclude, temperature, seed, stream, position, uncond, cfg_scale, edits, dtype
    )
    check_credits(ids, credits, logits)
    alpha, beta, gamma = real("alpha", alpha), real("beta", beta), real("gamma", gamma)
    for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
        require(value >= 0, name, value, "give a finite number, 0 or more")
    if is_available(logits.device):
        state = (ids.contiguous(), credits.contiguous())
        first, *rest = flat(arguments)
        *found, ids, credits = torch.ops.dlmdecode.credit(first, *state, alpha, beta, gamma, *rest)
        proposed = Proposed(*found)
    else:
        proposed, ids, credits = reference.credit(
            ids=ids, credits=credits, alpha=alpha, beta=beta, gamma=gamma, **arguments
        )
    return settled(proposed), ids, credits


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
    given = {
        "quota": quota,
        "threshold": threshold,
        "factor": factor,
        "delta": delta,
        "gamma": gamma,
        "entropy": entropy,
        "relaxed": relaxed,
        "radius": radius,
    }
    how = selection(rule, given, minimum)
    mask_id = integer("mask_id", mask_id)
    check_canvas(tokens, proposed, confidence, lo, hi, how)
    if not is_available(tokens.device):
        return reference.commit(tokens, proposed, confidence, lo, hi, mask_id, how)
    return torch.ops.dlmdecode.commit(
        tokens,
        proposed.contiguous(),
        confidence.contiguous(),
        lo.contiguous(),
        hi.contiguous(),
        mask_id,
        list(RULES).index(rule),
        how.level,
        how.relaxed,
        how.radius,
        dense(how.quota),
        dense(how.entropy),
        minimum,
    )


def topm(logits: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m best tokens of each row and their log-probabilities, best first.

    logits: (N, V) as for `propose`; 1 <= m <= 32. Returns ids int64 (N, m), the lowest first among
    equals, and log-probabilities float32 (N, m); id -1 and -inf where a row has fewer than m tokens
    above -inf. Errors as for `propose`.
    """
    check_logits(logits)
    m = integer("m", m)
    require(1 <= m <= 32, "m", m, "give a number from 1 to 32")
    if is_available(logits.device):
        ids, log_prob = torch.ops.dlmdecode.topm(dense_rows(logits), m)
    else:
        ids, log_prob = reference.topm(logits, m)
    if ids.device.type == "cpu" and not torch.compiler.is_compiling():
        check_rows(ids[:, 0])
    return ids, log_prob


def candidates(
    ids: Tensor, log_prob: Tensor, *, mass: float, eos_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """DiffuSpec's entropy-adaptive candidate sets (arXiv 2510.02358); on the CPU.

    A position keeps its fewest best tokens whose probabilities add up to `mass`, less those of
    `eos_ids` (int64) at every position but the last. Tokens of log-probability -inf are never kept.

    ids int64 and log_prob float32 (K, M), best first. Returns both with what is kept moved to the
    front of each row, and how many that are, int64 (K,).
    Raises ValueError for arguments that do not fit.
    """
    check_lattice(ids, log_prob, eos_ids)
    mass = real("mass", mass)
    require(0 < mass <= 1, "mass", mass, "give a probability above 0")
    choose = torch.ops.dlmdecode.candidates.default if LOADED else reference.candidates
    return choose(ids.contiguous(), log_prob.float().contiguous(), mass, eos_ids.contiguous())


def path_search(
    ids: Tensor,
    log_prob: Tensor,
    count: Tensor,
    *,
    keys: Sequence[Tensor],
    log_probs: Sequence[Tensor],
    contexts: Sequence[Tensor],
    weights: Sequence[Tensor],
    floor: float,
    prefix: Tensor,
    beam: int,
    lam: float,
    eos_ids: Tensor,
) -> tuple[Tensor, float]:
    """The best path through a lattice of draft tokens (DiffuSpec, arXiv 2510.02358); on the CPU.

    score(path) = sum over i of lam log_prob(y_i) + (1 - lam) log p_ngram(y_i | y_<i), by a beam
    search from left to right; a path that ends in EOS is finished and keeps competing.

    ids int64 and log_prob float32 (K, M): the lattice; count int64 (K,): candidates in use, 1 to M.
    keys, log_probs: for each order n of the n-gram model, sorted int64 keys of n tokens and float32
        scores. contexts, weights: the same for contexts of n - 1 tokens and their back-off weights
        (not read for order 1). Keys as in `speculation/diffuspec/ngram.py`; `floor`: a token
        unknown to order 1.
    prefix: int64 (P,), the tokens before the lattice, at least as many as the order less one.

    Returns the ids of the path, int64, and its score. Of equal scores the one found first wins.
    Raises ValueError for arguments that do not fit.
    """
    check_lattice(ids, log_prob, eos_ids)
    check_numbers("count", count, torch.int64)
    require(count.shape == ids.shape[:1], "count", count, "give one for each row of ids")
    used = count.tolist() or [1]
    fits = min(used) >= 1 and max(used) <= ids.shape[1]
    require(fits, "count", used, "give numbers from 1 to the width of ids")
    arrays = {"keys": keys, "log_probs": log_probs, "contexts": contexts, "weights": weights}
    for name, listed in arrays.items():
        orders = len(listed) if isinstance(listed, (list, tuple)) else 0
        fits = orders > 0 and orders == len(keys)
        require(fits, name, listed, "give a list with one array for each order")
    check_tables("keys", keys, "log_probs", log_probs)
    check_tables("contexts", contexts, "weights", weights)
    check_numbers("prefix", prefix, torch.int64)
    beam, lam, floor = integer("beam", beam), real("lam", lam), real("floor", floor)
    enough = len(prefix) >= len(keys) - 1
    require(enough, "prefix", prefix, "give at least as many tokens as the order less one")
    require(beam >= 1, "beam", beam, "give at least 1")
    require(0 <= lam <= 1, "lam", lam, "give a weight from 0 to 1")
    search = torch.ops.dlmdecode.path_search.default if LOADED else reference.path_search
    path, score = search(
        ids.contiguous(),
        log_prob.float().contiguous(),
        count.contiguous(),
        [array.contiguous() for array in keys],
        [array.contiguous() for array in log_probs],
        [array.contiguous() for array in contexts],
        [array.contiguous() for array in weights],
        floor,
        prefix.contiguous(),
        beam,
        lam,
        eos_ids.contiguous(),
    )
    return path, score.item()


def count_ngrams(ids: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """The n-grams of a text, of orders 1 to `order`, relative to their contexts; on the CPU.

    ids: int64 (T,), none negative. -1 stands before the first.

    Returns sorted int64 keys of the n-grams, the float32 log of their counts over those of their
    contexts, and sorted int64 keys of the contexts. Keys as in `speculation/diffuspec/ngram.py`;
    those of one order are none of another, so that one table serves all orders of `path_search`.
    Raises ValueError for arguments that do not fit.
    """
    check_numbers("ids", ids, torch.int64)
    require(not len(ids) or int(ids.min()) >= 0, "ids", ids, "give none below 0")
    order = integer("order", order)
    require(order >= 1, "order", order, "give at least 1")
    count = torch.ops.dlmdecode.count_ngrams if LOADED else reference.count_ngrams
    return count(ids.contiguous(), order)


class NoProposal(ValueError):
    """Rows of logits that have no answer: NaN, +inf, or every token banned. `rows` lists them."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


def check(proposed: Proposed) -> None:
    """Raise `NoProposal` that names the rows without an answer; waits for the device."""
    check_rows(proposed.token)


def check_rows(token: Tensor) -> None:
    bad = (token == BAD).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        message = f"logits: row {shown} holds NaN or +inf, or bans every token that may be proposed"
        raise NoProposal(message, bad)


def settled(proposed: Proposed) -> Proposed:
    """Check at once where that costs no synchronisation and breaks no graph."""
    if proposed.token.device.type == "cpu" and not torch.compiler.is_compiling():
        check(proposed)
    return proposed
