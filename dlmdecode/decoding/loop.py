"""The one decoding loop. It names no method; see `sampler.py` for what the parts are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.canvas import Canvas, Trail
from dlmdecode.decoding.forward import Forward, headed
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler

COMPLETE = "a complete recipe has a selection and blocks: build it with sampler()"


class BadLogits(FloatingPointError):
    """NaN or infinite logits in a row's `step`, for `rows` (`Canvas.row`), the first one named."""

    def __init__(self, step: int, rows: list[int]):
        reason = "the model's logits are NaN or infinite, or ban every token"
        super().__init__(f"step {step}, row {rows[0]}: {reason}")
        self.rows = rows


def denoise(
    forward: Forward,
    canvas: Canvas,
    sampler: Sampler,
    dtype: torch.dtype = torch.float32,
    admit: Callable[[Canvas], Canvas] = lambda rows: rows,
) -> Iterator[Canvas]:
    """Yield the rows still being written, after every step, until none is left.

    Before each step `admit` may let rows go, or join new ones, whose `nfe` is 0.

    Ends after at most as many steps as there are masks: every step commits at least one token of
    every row, and a revision takes back fewer than the step before committed. Steps in which
    verification only looks, and those of a block that a revision holds open, come on top.
    `dtype` is the precision of probabilities, float32 or float64.
    """
    while True:
        with torch.inference_mode():  # of each step: around the loop it would outlive one left open
            canvas = admit(canvas)
            if not len(canvas):
                return
            canvas = step(forward, canvas.copy(), sampler, dtype)
        yield canvas
        canvas = unfinished(canvas)


def step(forward: Forward, canvas: Canvas, sampler: Sampler, dtype: torch.dtype) -> Canvas:
    """The canvas after one denoising step."""
    assert sampler.blocks is not None, COMPLETE
    if sampler.blocks.slides:
        canvas.slide(sampler.blocks)
    rows = sampler.verify.branch(canvas, partial(choose, sampler))  # N >= B candidate canvases
    look(forward, rows, sampler, dtype)
    canvas = sampler.verify.pick(rows, partial(choose, sampler))  # one row per sequence survives
    canvas.open_blocks(sampler.blocks)
    trail: Trail = [(sampler.verify, canvas.tokens)]
    where, looks = choose(sampler, canvas, trail), sampler.verify.looks(canvas)
    if looks is not None:
        where = where & ~looks[:, None]
    for stop in sampler.stops:
        where = where | (stop(canvas)[:, None] & canvas.masked)
        trail.append((stop, where))
    canvas.commit(where)
    trail.append((None, canvas.tokens))
    for revise in sampler.revisions:
        revise(canvas, where)
        trail.append((revise, canvas.tokens))
    canvas.trail = trail
    check(canvas)
    return canvas


def unfinished(canvas: Canvas) -> Canvas:
    """The rows with something left to write."""
    going = [i for i, row in enumerate(canvas.seen) if not row.done]
    if len(going) == len(canvas):
        return canvas
    with torch.inference_mode():
        return canvas.take(torch.tensor(going, dtype=torch.int64, device=canvas.lo.device))


def wanted(sampler: Sampler, rows: Canvas, forward: Forward) -> Positions:
    """The positions whose logits the recipe will read next."""
    assert sampler.blocks is not None, COMPLETE
    if sampler.reads_canvas:
        return rows.text_span
    if not any(row.full for row in rows.seen):
        written = sampler.reads_committed or sampler.takes_back
        gaps = not written and getattr(forward, "gaps", False)
        return rows.open_positions if gaps else rows.block_span
    full = rows.block_full & (rows.branch == 0)
    ahead = rows.ahead(rows.hi, sampler.blocks.reach(rows)).minimum(rows.stop)
    return Span(torch.where(full, rows.hi, rows.lo), torch.where(full, ahead, rows.hi))


def look(forward: Forward, rows: Canvas, sampler: Sampler, dtype: torch.dtype) -> None:
    """Give rows the proposals of a forward; of many positions the logits come in slices."""
    asked = wanted(sampler, rows, forward)
    halves = headed(forward) if sampler.by_position else None
    if halves is None:
        logits, positions = forward(rows, asked)
        rows.nfe = rows.nfe + 1
        propose(sampler, rows, logits, positions, dtype)
    else:
        hidden, positions = halves.states(rows, asked)
        rows.nfe = rows.nfe + 1
        for some, part in halves.slices(hidden, positions):
            propose(sampler, rows, halves.head(some), part, dtype)
    rows.fresh = positions


def propose(
    sampler: Sampler, rows: Canvas, logits: Tensor, positions: Positions, dtype: torch.dtype
) -> None:
    """Turn logits (N, W, V) at `positions` into the rows' proposals there."""
    for process in sampler.processors:
        logits = process(logits, rows, positions)
    need = (rows.text if sampler.reads_committed else rows.masked).gather(1, positions.at)
    drawn = sampler.temperature > 0
    try:
        proposed = sampler.estimate(
            logits,
            rows,
            positions,
            need,
            exclude=rows.mask_id,
            temperature=sampler.temperature,
            stream=rows.stream[:, None].expand_as(positions.at).flatten() if drawn else None,
            position=positions.at.flatten() if drawn else None,
            dtype=dtype,
            wait=False,  # `check` looks, with all else that is read of the device
        )
    except ops.NoProposal as error:
        bad = dict.fromkeys(row // positions.width for row in error.rows)
        raise bad_logits(rows, list(bad)) from error
    rows.proposal.put(positions, need, proposed)


def check(canvas: Canvas) -> None:
    """Raise `BadLogits` where the model's were NaN or infinite."""
    bad = [i for i, row in enumerate(canvas.seen) if row.bad]
    if bad:
        raise bad_logits(canvas, bad)


def bad_logits(rows: Canvas, bad: list[int]) -> BadLogits:
    """The error of these rows of a canvas."""
    return BadLogits(int(rows.nfe[bad[0]]), rows.row[bad].unique().tolist())


def choose(sampler: Sampler, canvas: Canvas, trail: Trail | None = None) -> Tensor:
    """What to commit in the open block, (B, L) bool; never nothing, so every loop ends.

    Where the rule names too few positions, the most confident ones are added. A `trail` gets what
    the rule itself names.
    """
    assert sampler.select is not None, COMPLETE
    confidence = canvas.proposal.prob
    for score in sampler.scores:
        confidence = score(confidence, canvas)
    canvas.confidence = confidence
    where = sampler.select(canvas)
    least = min(sampler.min_tokens_per_step, where.shape[1])
    if trail is not None:
        trail.append((sampler.select, where))
    if least > 1:
        where = where & canvas.open
        short = where.sum(1, keepdim=True) < least
        return where | (most_confident(confidence, canvas.open, least) & short)
    return ops.choose(where, canvas.open, confidence)


def most_confident(confidence: Tensor, open: Tensor, count: int) -> Tensor:
    """The `count` most confident of the `open` positions, ties to the lowest, (B, L) bool."""
    ranked = confidence.masked_fill(~open, -torch.inf)
    best = ranked.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(open).scatter(1, best, True) & open
