"""What the ops accept: the checks that look at no number, and the C++ argument order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import conform, number, require
from dlmdecode.ops.reference import Selection

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
    exclude, seed = integer("exclude", exclude), integer("seed", seed)
    temperature, cfg_scale = real("temperature", temperature), real("cfg_scale", cfg_scale)
    require(-1 <= exclude < vocabulary, "exclude", exclude, f"give an id below {vocabulary}, or -1")
    usable = temperature == 0 or temperature >= 1e-6
    require(usable, "temperature", temperature, "give 0, or a finite number of at least 1e-6")
    require(
        dtype in (torch.float32, torch.float64), "dtype", dtype, "give torch.float32 or float64"
    )
    check_vector("need", need, torch.bool, logits)
    check_vector("stream", stream, torch.int64, logits)
    check_vector("position", position, torch.int64, logits)
    if uncond is not None:
        check_tensor("uncond", uncond)
        like = f"give {logits.dtype} {tuple(logits.shape)} like the logits"
        fits = uncond.shape == logits.shape and uncond.dtype == logits.dtype
        require(fits and uncond.device == logits.device, "uncond", uncond, like)
    if edits is not None:
        pair = isinstance(edits, tuple) and len(edits) == 2
        require(pair, "edits", edits, "give a pair (ids, values)")
        check_edits(*edits, logits)
        edits = (edits[0], edits[1].float())
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


def real(name: str, value: Any) -> float:
    """A finite Python float; what is one already costs a traced graph nothing."""
    if type(value) is float and math.isfinite(value):
        return value
    return number(name, value)


def integer(name: str, value: Any) -> int:
    """A Python int."""
    return value if type(value) is int else conform(name, value, int)


def check_tensor(name: str, value: Any) -> None:
    require(isinstance(value, Tensor), name, value, "give a torch tensor")


def check_device(name: str, value: Tensor, like: Tensor) -> None:
    require(value.device == like.device, name, value, f"give it on {like.device}")


def check_edits(ids: Any, values: Any, logits: Tensor) -> None:
    for name, value in (("edits ids", ids), ("edits values", values)):
        check_tensor(name, value)
        check_device(name, value, logits)
    rows = len(logits)
    require(ids.dim() == 2 and len(ids) == rows, "edits ids", ids, f"give ({rows}, T)")
    require(ids.dtype == torch.int64, "edits ids", ids, "give int64")
    like = f"give floats {tuple(ids.shape)} like ids"
    fits = values.shape == ids.shape and values.is_floating_point()
    require(fits, "edits values", values, like)


def check_credits(ids: Any, credits: Any, logits: Tensor) -> None:
    """The slots of `credit`; their numbers are looked at on the CPU only, where that waits for
    nothing."""
    for name, value in (("ids", ids), ("credits", credits)):
        check_tensor(name, value)
        check_device(name, value, logits)
    slots = ids.dim() == 2 and len(ids) == len(logits) and ids.shape[1] > 0
    require(slots, "ids", ids, "give (rows, slots)")
    require(ids.dtype == torch.int64, "ids", ids, "give int64")
    require(credits.shape == ids.shape, "credits", credits, f"give shape {tuple(ids.shape)} of ids")
    require(credits.dtype == torch.float32, "credits", credits, "give float32")
    if credits.device.type == "cpu" and not torch.compiler.is_compiling() and credits.numel():
        low, high = credits.aminmax()
        known = bool(low >= 0) and bool(high < torch.inf)
        require(known, "credits", float(low if not low >= 0 else high), "give 0 or more each")


def check_lattice(ids: Any, log_prob: Any, eos_ids: Any) -> None:
    """What `candidates` and `path_search` have in common."""
    for name, value in {"ids": ids, "log_prob": log_prob, "eos_ids": eos_ids}.items():
        check_tensor(name, value)
        require(value.device.type == "cpu", name, value, "give it on the CPU")
    wide = ids.dim() == 2 and ids.shape[1] > 0 and ids.dtype == torch.int64
    require(wide, "ids", ids, "give int64 (positions, candidates)")
    floats = log_prob.shape == ids.shape and log_prob.is_floating_point()
    require(floats, "log_prob", log_prob, "give floats of the shape of ids")
    check_numbers("eos_ids", eos_ids, torch.int64)


def check_numbers(name: str, value: Any, dtype: torch.dtype) -> None:
    """A vector on the CPU."""
    check_tensor(name, value)
    fits = value.dim() == 1 and value.dtype == dtype and value.device.type == "cpu"
    require(fits, name, value, f"give {dtype} (n,) on the CPU")


def check_tables(name: str, keys: Any, values_name: str, values: Any) -> None:
    """For each order of an n-gram model, sorted keys and as many numbers."""
    for order, (key, value) in enumerate(zip(keys, values, strict=True)):
        check_numbers(f"{name}[{order}]", key, torch.int64)
        check_numbers(f"{values_name}[{order}]", value, torch.float32)
        fix = f"give one for each of the {len(key)} keys"
        require(len(key) == len(value), f"{values_name}[{order}]", value, fix)


def check_logits(logits: Any) -> None:
    check_tensor("logits", logits)
    require(logits.dim() == 2, "logits", logits, "give a matrix (rows, vocabulary)")
    require(logits.shape[1] > 0, "logits", logits, "give a vocabulary of at least one token")
    require(logits.dtype in FLOATS, "logits", logits, "give float32, bfloat16, float16 or float64")


def check_vector(name: str, value: Tensor | None, dtype: torch.dtype, logits: Tensor) -> None:
    if value is not None:
        check_tensor(name, value)
        fits = value.shape == logits.shape[:1] and value.dtype == dtype
        require(
            fits and value.device == logits.device, name, value, f"give {dtype} ({len(logits)},)"
        )


def selection(rule: str, given: dict, minimum: int) -> Selection:
    """The rule with its parameters, and no others."""
    known = isinstance(rule, str) and rule in RULES
    require(known, "rule", rule, f"give one of {', '.join(RULES)}")
    wanted = RULES[rule]
    for name, value in given.items():
        fits = (value is not None) == (name in wanted)
        require(fits, name, value, f"give exactly {', '.join(wanted)} with rule {rule!r}")
    minimum = integer("minimum", minimum)
    require(minimum >= 0, "minimum", minimum, "give 0 or more")
    levels = [real(name, given[name]) for name in LEVELS if given[name] is not None]
    radius = 0 if given["radius"] is None else integer("radius", given["radius"])
    require(radius >= 0, "radius", radius, "give 0 or more")
    return Selection(
        rule,
        level=levels[0] if levels else 0.0,
        relaxed=0.0 if given["relaxed"] is None else real("relaxed", given["relaxed"]),
        radius=radius,
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
    check_tensor("tokens", tokens)
    usable = tokens.dim() == 2 and tokens.dtype == torch.int64
    require(usable, "tokens", tokens, "give int64 (rows, length)")
    dense_enough = tokens.stride(1) == 1 or tokens.shape[1] <= 1
    require(dense_enough, "tokens", tokens, "give rows that are dense in memory")
    floats = (torch.float32, torch.float64)
    matrices = {"proposed": (proposed, (torch.int64,)), "confidence": (confidence, floats)}
    if how.entropy is not None:
        matrices["entropy"] = (how.entropy, (torch.float32,))
    for name, (value, dtypes) in matrices.items():
        check_tensor(name, value)
        fits = value.shape == tokens.shape and value.dtype in dtypes
        kinds = " or ".join(map(str, dtypes))
        require(fits, name, value, f"give {kinds} {tuple(tokens.shape)} like tokens")
        require(
            value.device == tokens.device, name, value, f"give it on {tokens.device} like tokens"
        )
    vectors = {"lo": lo, "hi": hi} | ({} if how.quota is None else {"quota": how.quota})
    for name, vector in vectors.items():
        check_tensor(name, vector)
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
