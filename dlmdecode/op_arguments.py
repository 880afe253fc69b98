"""What the ops accept: the checks that look at no number, and the C++ argument order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.reference import Selection

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Edits = tuple[Tensor, Tensor]
# Parameters of each rule of `commit`, in the order of `Rule` in csrc/commit.h.
RULES = {
    "topk": ("quota",),
    "threshold": ("threshold",),
    "factor": ("factor",),
    "frechet": ("delta",),
    "entropy_bound": ("gamma", "entropy"),
    "relaxed": ("threshold", "relaxed", "radius"),
}
LEVELS = ("threshold", "factor", "delta", "gamma")


def checked(
    logits: Tensor,
    need: Tensor | None,
    exclude: int,
    temperature: float,
    seed: int,
    stream: Tensor | None,
    position: Tensor | None,
    uncond: Tensor | None,
    cfg_scale: float,
    edits: Edits | None,
    dtype: torch.dtype,
) -> dict:
    """The arguments by name, after every check that needs no look at the numbers."""
    check_logits(logits)
    rows, vocabulary = logits.shape
    require(-1 <= exclude < vocabulary, "exclude", exclude, f"give an id below {vocabulary}, or -1")
    usable = temperature == 0 or (temperature >= 1e-6 and math.isfinite(temperature))
    require(usable, "temperature", temperature, "give 0, or a finite number of at least 1e-6")
    require(math.isfinite(cfg_scale), "cfg_scale", cfg_scale, "give a finite number")
    require(
        dtype in (torch.float32, torch.float64), "dtype", dtype, "give torch.float32 or float64"
    )
    check_vector("need", need, torch.bool, logits)
    check_vector("stream", stream, torch.int64, logits)
    check_vector("position", position, torch.int64, logits)
    if uncond is not None:
        like = f"give {logits.dtype} {tuple(logits.shape)} like the logits"
        fits = uncond.shape == logits.shape and uncond.dtype == logits.dtype
        require(fits and uncond.device == logits.device, "uncond", uncond, like)
    if edits is not None:
        ids, values = edits
        require(ids.dim() == 2 and len(ids) == rows, "edits ids", ids, f"give ({rows}, T)")
        require(ids.dtype == torch.int64, "edits ids", ids, "give int64")
        require(
            values.shape == ids.shape, "edits values", values, f"give {tuple(ids.shape)} like ids"
        )
        edits = (ids, values.float())
    return {
        "logits": logits,
        "need": need,
        "exclude": exclude,
        "temperature": temperature,
        "seed": seed,
        "stream": stream,
        "position": position,
        "uncond": uncond,
        "cfg_scale": cfg_scale,
        "edits": edits,
        "dtype": dtype,
    }


def check_logits(logits: Tensor) -> None:
    require(logits.dim() == 2, "logits", logits, "give a matrix (rows, vocabulary)")
    require(logits.shape[1] > 0, "logits", logits, "give a vocabulary of at least one token")
    require(logits.dtype in FLOATS, "logits", logits, "give float32, bfloat16, float16 or float64")


def check_vector(name: str, value: Tensor | None, dtype: torch.dtype, logits: Tensor) -> None:
    if value is not None:
        fits = value.shape == logits.shape[:1] and value.dtype == dtype
        require(
            fits and value.device == logits.device, name, value, f"give {dtype} ({len(logits)},)"
        )


def selection(rule: str, given: dict, minimum: int) -> Selection:
    """The rule with its parameters, and no others."""
    require(rule in RULES, "rule", rule, f"give one of {', '.join(RULES)}")
    wanted = RULES[rule]
    for name, value in given.items():
        fits = (value is not None) == (name in wanted)
        require(fits, name, value, f"give exactly {', '.join(wanted)} with rule {rule!r}")
    require(minimum >= 0, "minimum", minimum, "give 0 or more")
    levels = [given[name] for name in LEVELS if given[name] is not None]
    require(all(map(math.isfinite, levels)), wanted[0], levels, "give a finite number")
    require((given["radius"] or 0) >= 0, "radius", given["radius"], "give 0 or more")
    return Selection(
        rule,
        level=levels[0] if levels else 0.0,
        relaxed=given["relaxed"] or 0.0,
        radius=given["radius"] or 0,
        quota=given["quota"],
        entropy=given["entropy"],
        minimum=minimum,
    )


def check_canvas(
    tokens: Tensor,
    proposed: Tensor,
    confidence: Tensor,
    lo: Tensor,
    hi: Tensor,
    how: Selection,
) -> None:
    usable = tokens.dim() == 2 and tokens.dtype == torch.int64
    require(usable, "tokens", tokens, "give int64 (rows, length)")
    dense_enough = tokens.stride(1) == 1 or tokens.shape[1] <= 1
    require(dense_enough, "tokens", tokens, "give rows that are dense in memory")
    floats = (torch.float32, torch.float64)
    matrices = {"proposed": (proposed, (torch.int64,)), "confidence": (confidence, floats)}
    if how.entropy is not None:
        matrices["entropy"] = (how.entropy, (torch.float32,))
    for name, (value, dtypes) in matrices.items():
        fits = value.shape == tokens.shape and value.dtype in dtypes
        require(fits, name, value, f"give {dtypes} {tuple(tokens.shape)} like tokens")
        require(
            value.device == tokens.device, name, value, f"give it on {tokens.device} like tokens"
        )
    for name, vector in {"lo": lo, "hi": hi, "quota": how.quota}.items():
        if vector is not None:
            fits = vector.shape == tokens.shape[:1] and vector.dtype == torch.int64
            require(fits, name, vector, f"give int64 ({len(tokens)},)")
            require(vector.device == tokens.device, name, vector, f"give it on {tokens.device}")


def dense(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.contiguous()


def dense_rows(value: Tensor) -> Tensor:
    """Rows may be apart in memory, the numbers of one row not."""
    return value if value.stride(1) == 1 or value.shape[1] == 1 else value.contiguous()


def flat(arguments: dict) -> tuple:
    """The arguments of `propose` in the order of the C++ schema."""
    uncond, edits, seed = arguments["uncond"], arguments["edits"], arguments["seed"]
    ids, values = (None, None) if edits is None else edits
    return (
        dense_rows(arguments["logits"]),
        dense(arguments["need"]),
        arguments["exclude"],
        arguments["temperature"],
        (seed + 2**63) % 2**64 - 2**63,  # the schema's integers are signed
        dense(arguments["stream"]),
        dense(arguments["position"]),
        None if uncond is None else dense_rows(uncond),
        arguments["cfg_scale"],
        dense(ids),
        dense(values),
        arguments["dtype"] == torch.float64,
    )
