"""The one decoding loop. It names no method; see `sampler.py` for what the parts are."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.forward import Forward
from dlmdecode.decoding.sampler import Sampler


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
    assert sampler.blocks is not None, "a complete recipe has blocks: build it with sampler()"
    rows = sampler.verify.branch(canvas, sampler.choose)  # N >= B candidate canvases
    logits, positions = forward(rows, sampler.wanted(rows))  # (N, W, V) at `positions`
    rows.nfe = rows.nfe + 1
    for process in sampler.processors:
        logits = process(logits, rows, positions)
    sampler.propose(logits, rows, positions, dtype)  # logits end here: now numbers
    canvas = sampler.verify.pick(rows, sampler.choose)  # one row per sequence survives
    canvas.open_blocks(sampler.blocks)
    where = sampler.choose(canvas)
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
