"""What ops accept: checks that look at no number, in words for the caller."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import conform, number, refuse, require

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def real(name: str, value: Any) -> float:
    """A finite Python float; what is one already costs a traced graph nothing."""
    if type(value) is float and math.isfinite(value):
        return value
    return number(name, value)


def integer(name: str, value: Any) -> int:
    """A Python int."""
    return value if type(value) is int else conform(name, value, int)


def check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        refuse(name, value, "give a torch tensor")


def check_device(name: str, value: Tensor, like: Tensor) -> None:
    if value.device != like.device:
        refuse(name, value, f"give it on {like.device}")


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


def check_place(
    name: str, value: Any, dtype: torch.dtype | None, shape: tuple[int, ...], like: Tensor
) -> None:
    """A tensor of this shape on the device of `like`; None for any floating-point dtype."""
    check_tensor(name, value)
    kind = value.is_floating_point() if dtype is None else value.dtype == dtype
    if not (kind and value.shape == shape):
        refuse(name, value, f"give {dtype or 'floating-point'} {shape}")
    check_device(name, value, like)


def check_numbers(name: str, value: Any, dtype: torch.dtype) -> None:
    """A vector on the CPU."""
    check_tensor(name, value)
    fits = value.dim() == 1 and value.dtype == dtype and value.device.type == "cpu"
    require(fits, name, value, f"give {dtype} (n,) on the CPU")


def check_logits(logits: Any) -> None:
    check_tensor("logits", logits)
    require(logits.dim() == 2, "logits", logits, "give a matrix (rows, vocabulary)")
    require(logits.shape[1] > 0, "logits", logits, "give a vocabulary of at least one token")
    require(logits.dtype in FLOATS, "logits", logits, "give float32, bfloat16, float16 or float64")


def check_vector(name: str, value: Tensor | None, dtype: torch.dtype, logits: Tensor) -> None:
    if value is not None:
        check_tensor(name, value)
        fits = value.shape == logits.shape[:1] and value.dtype == dtype
        if not (fits and value.device == logits.device):
            refuse(name, value, f"give {dtype} ({len(logits)},)")


def dense(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.contiguous()


def dense_rows(value: Tensor) -> Tensor:
    """Rows may be apart in memory, the numbers of one row not."""
    return value if value.stride(1) == 1 or value.shape[1] == 1 else value.contiguous()
