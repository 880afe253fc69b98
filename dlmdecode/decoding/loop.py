"""The one decoding loop. It names no method; see `sampler.py` for what the parts are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from dlmdecode import ops
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.positions import Positions, Span
from dlmdecode.decoding.sampler import Sampler

COMPLETE = "a complete recipe has a selection and blocks: build it with sampler()"


def denoise(
    forward: Forward,
    canvas: Canvas,
    sampler: Sampler,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Canvas]:
    """Yield the rows still being written, after every step, until none is left.

    Ends after at most as many steps as there are masks: every step commits at least one token of
    every row, and a revision takes back fewer than the step before committed.
    `dtype` is the precision of probabilities, float32 or float64.
    """
    while len(canvas):
        canvas = step(forward, canvas, sampler, dtype)
        yield canvas
        canvas = unfinished(canvas)


@torch.inference_mode()  # of each step: around the generator it would outlive one that is left open
def step(forward: Forward, canvas: Canvas, sampler: Sampler, dtype: torch.dtype) -> Canvas:
    """The canvas after one denoising step."""
    assert sampler.blocks is not None, COMPLETE
    if sampler.blocks.slides:
        canvas.slide(sampler.blocks)
    rows = sampler.verify.branch(canvas, partial(choose, sampler))  # N >= B candidate canvases
    logits, positions = forward(rows, wanted(sampler, rows))  # (N, W, V) at `positions`
    rows.nfe = rows.nfe + 1
    for process in sampler.processors:
        logits = process(logits, rows, positions)
    propose(sampler, rows, logits, positions, dtype)  # logits end here: now numbers
    canvas = sampler.verify.pick(rows, partial(choose, sampler))  # one row per sequence survives
    canvas.open_blocks(sampler.blocks)
    where = choose(sampler, canvas)
    for stop in sampler.stops:
        where = where | (stop(canvas)[:, None] & canvas.masked)
    canvas.commit(where)
    for revise in sampler.revisions:
        revise(canvas, where)
    return canvas


@torch.inference_mode()
def unfinished(canvas: Canvas) -> Canvas:
    """The rows with something left to write."""
    return canvas.take((~canvas.done).nonzero()[:, 0])


def wanted(sampler: Sampler, rows: Canvas) -> Span:
    """The positions whose logits the recipe will read next."""
    assert sampler.blocks is not None, COMPLETE
    if sampler.reads_canvas:
        return Span(rows.start, rows.stop)
    full = rows.block_full & (rows.branch == 0)
    ahead = torch.minimum(rows.hi + sampler.blocks.reach(rows), rows.stop)
    return Span(torch.where(full, rows.hi, rows.lo), torch.where(full, ahead, rows.hi))


def propose(
    sampler: Sampler, rows: Canvas, logits: Tensor, positions: Positions, dtype: torch.dtype
) -> None:
    """Turn logits (N, W, V) at `positions` into the rows' proposals there.

    Raises `FloatingPointError`, naming step and row, for NaN or infinite logits.
    """
    need = rows.text if sampler.reads_committed else rows.masked
    try:
        proposed = sampler.estimate(
            logits,
            rows,
            positions,
            need.gather(1, positions.at),
            exclude=rows.mask_id,
            temperature=sampler.temperature,
            stream=rows.stream[:, None].expand_as(positions.at).flatten(),
            position=positions.at.flatten(),
            dtype=dtype,
        )
        if proposed.token.device.type != "cpu":  # there the op itself does not wait to look
            ops.check(proposed)
    except ops.NoProposal as error:
        bad = error.rows[0] // positions.width
        raise FloatingPointError(
            f"step {int(rows.nfe[bad])}, row {int(rows.row[bad])}: the model's logits are NaN or "
            "infinite, or ban every token"
        ) from error
    rows.proposal.put(positions, need, proposed)
    rows.fresh = positions


def choose(sampler: Sampler, canvas: Canvas) -> Tensor:
    """What to commit in the open block, (B, L) bool; never nothing, so every loop ends."""
    assert sampler.select is not None, COMPLETE
    confidence = canvas.proposal.prob
    for score in sampler.scores:
        confidence = score(confidence, canvas)
    canvas.confidence = confidence
    open = canvas.open
    where = sampler.select(canvas) & open
    most_confident = confidence.masked_fill(~open, -torch.inf).argmax(1, keepdim=True)
    stuck = open.any(1) & ~where.any(1)
    return where | (torch.zeros_like(where).scatter(1, most_confident, True) & stuck[:, None])
