"""Fused ops: what a decoding step does with logits, in one read of them.

Each op is a `torch.library` custom op with C++ and CUDA kernels (`csrc/`), and a reference in plain
torch (`dlmdecode/reference.py`) that says what it means, is the oracle of its tests, and takes its
place where the extension was not built. `DLMDECODE_REFERENCE=1` forces the reference.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from dlmdecode import reference
from dlmdecode.reference import BAD, UNNEEDED, Proposed

__all__ = [
    "BAD",
    "UNNEEDED",
    "NoProposal",
    "Proposed",
    "check",
    "credit",
    "is_available",
    "propose",
]

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Edits = tuple[Tensor, Tensor]


def load(path: Path) -> bool:
    """Load the extension if it was built and is wanted; one that is broken raises its own error."""
    if os.environ.get("DLMDECODE_REFERENCE") == "1":
        return False
    if not path.exists():
        logging.getLogger("dlmdecode").info("no extension at %s: ops run in plain torch", path)
        return False
    torch.ops.load_library(path)
    return True


LOADED = load(Path(__file__).with_name("_C.abi3.so"))


def is_available(device: str | torch.device = "cpu") -> bool:
    """Whether ops on this device run in the extension, and not in plain torch."""
    kind = torch.device(device).type
    return LOADED and (kind == "cpu" or (kind == "cuda" and torch.ops.dlmdecode.has_cuda()))


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
    need: bool (N,), rows to read; the others get token -1, log-probability -inf, margin and entropy 0.
    exclude: an id never proposed that stays in the normaliser (the mask); -1 for none.
    temperature: above 0, the token is the argmax of logit / temperature + Gumbel noise, which depends
        only on `seed` (64 bits), `stream` and `position` (int64 (N,); default: row index, 0) and the
        token id: equal on every device, in every batch, with every number of threads.
    uncond, cfg_scale: logits become u + (1 + cfg_scale) (z - u), and -inf where z is -inf.
    edits: ids int64 (N, T) and values float32 (N, T), added to the logits of those ids; id -1 marks
        an unused slot, -inf bans an id, repeated ids add up.
    dtype: of the results and the sums, torch.float32 or torch.float64.

    Returns `Proposed`: token int64 (the lowest of equals), its log-probability under the untempered
    softmax (precise also near 0), best minus second best logit, and entropy in nats; each (N,).

    Raises ValueError for arguments that do not fit, and on the CPU for rows that hold NaN or +inf or
    leave nothing to propose. On other devices such rows get token -2, for `check` to find when the
    caller can wait for the device.
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

    All credits of a needed row decay by `beta`; the best token gains its probability to the power of
    `gamma`, in its slot, else in the first empty one, else in place of the smallest credit. Then
    `propose` decides on logits + `alpha` log(1 + credit). As many slots as a block has steps make this
    equal to a credit for every token. Other arguments, errors and the first result as in `propose`;
    also returns the new ids and credits. Rows that are not needed or have no answer keep theirs.
    """
    arguments = checked(
        logits, need, exclude, temperature, seed, stream, position, uncond, cfg_scale, edits, dtype
    )
    rows = len(logits)
    require(ids.dim() == 2 and len(ids) == rows and ids.shape[1] > 0, "ids", ids, "(rows, slots)")
    require(ids.dtype == torch.int64, "ids", ids, "int64")
    require(credits.shape == ids.shape, "credits", credits, f"shape {tuple(ids.shape)} of ids")
    require(credits.dtype == torch.float32, "credits", credits, "float32")
    for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
        require(value >= 0 and math.isfinite(value), name, value, "finite and not negative")
    how = {"alpha": alpha, "beta": beta, "gamma": gamma}
    if is_available(logits.device):
        state = (ids.contiguous(), credits.contiguous())
        first, *rest = flat(arguments)
        *found, ids, credits = torch.ops.dlmdecode.credit(first, *state, *how.values(), *rest)
        proposed = Proposed(*found)
    else:
        proposed, ids, credits = reference.credit(ids=ids, credits=credits, **how, **arguments)
    return settled(proposed), ids, credits


class NoProposal(ValueError):
    """Rows of logits that have no answer: NaN, +inf, or every token banned. `rows` lists them."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


def check(proposed: Proposed) -> None:
    """Raise `NoProposal` that names the rows without an answer; waits for the device."""
    bad = (proposed.token == BAD).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        message = f"logits: row {shown} holds NaN or +inf, or bans every token that may be proposed"
        raise NoProposal(message, bad)


def settled(proposed: Proposed) -> Proposed:
    """Check at once where that costs no synchronisation and breaks no graph."""
    if proposed.token.device.type == "cpu" and not torch.compiler.is_compiling():
        check(proposed)
    return proposed


def require(condition: bool, name: str, value: object, fix: str) -> None:
    if not condition:
        if isinstance(value, Tensor):
            value = f"{value.dtype} {tuple(value.shape)} on {value.device}"
        raise ValueError(f"{name} is {value}: give {fix}")


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
    require(-1 <= exclude < vocabulary, "exclude", exclude, f"an id below {vocabulary}, or -1")
    usable = temperature == 0 or (temperature >= 1e-6 and math.isfinite(temperature))
    require(usable, "temperature", temperature, "0, or a finite number of at least 1e-6")
    require(math.isfinite(cfg_scale), "cfg_scale", cfg_scale, "a finite number")
    require(dtype in (torch.float32, torch.float64), "dtype", dtype, "torch.float32 or float64")
    check_vector("need", need, torch.bool, logits)
    check_vector("stream", stream, torch.int64, logits)
    check_vector("position", position, torch.int64, logits)
    if uncond is not None:
        like = f"{logits.dtype} {tuple(logits.shape)} like the logits"
        fits = uncond.shape == logits.shape and uncond.dtype == logits.dtype
        require(fits and uncond.device == logits.device, "uncond", uncond, like)
    if edits is not None:
        ids, values = edits
        require(ids.dim() == 2 and len(ids) == rows, "edits ids", ids, f"({rows}, T)")
        require(ids.dtype == torch.int64, "edits ids", ids, "int64")
        require(values.shape == ids.shape, "edits values", values, f"{tuple(ids.shape)} like ids")
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
    require(logits.dim() == 2, "logits", logits, "a matrix (rows, vocabulary)")
    require(logits.shape[1] > 0, "logits", logits, "a vocabulary of at least one token")
    require(logits.dtype in FLOATS, "logits", logits, "float32, bfloat16, float16 or float64")


def check_vector(name: str, value: Tensor | None, dtype: torch.dtype, logits: Tensor) -> None:
    if value is not None:
        fits = value.shape == logits.shape[:1] and value.dtype == dtype
        require(fits and value.device == logits.device, name, value, f"{dtype} ({len(logits)},)")


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


def register_fakes() -> None:
    """Shapes and dtypes of the results, for `torch.compile` and export."""

    @torch.library.register_fake("dlmdecode::propose")
    def _(logits, *rest):
        wide = torch.float64 if rest[-1] else torch.float32
        rows = logits.shape[0]
        number = [logits.new_empty(rows, dtype=wide) for _ in range(3)]
        return logits.new_empty(rows, dtype=torch.int64), *number

    @torch.library.register_fake("dlmdecode::credit")
    def _(logits, ids, credits, *rest):
        wide = torch.float64 if rest[-1] else torch.float32
        rows = logits.shape[0]
        number = [logits.new_empty(rows, dtype=wide) for _ in range(3)]
        token = logits.new_empty(rows, dtype=torch.int64)
        return token, *number, torch.empty_like(ids), torch.empty_like(credits)


if LOADED:
    register_fakes()
