"""The compiled ops: loading them, and what each is where there is no kernel for a device."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

R = TypeVar("R")
BUILT = Path(__file__).parents[1] / "_C.abi3.so"


def load(path: Path) -> bool:
    """Load the extension if it was built and is wanted; one that is broken raises its own error."""
    if os.environ.get("DLMDECODE_REFERENCE") == "1":
        return False
    note = path.with_name("not_built.txt")  # written by setup.py where something did not build
    reason = note.read_text(encoding="utf-8") if note.exists() else "it was not asked for"
    log = logging.getLogger("dlmdecode")
    if not path.exists():
        log.warning(
            "no C++ extension, so ops run in plain torch (%s); build it with pip install "
            "--no-build-isolation -e . or set DLMDECODE_REFERENCE=1 to be silent",
            reason,
        )
        return False
    torch.ops.load_library(path)
    if note.exists() and torch.cuda.is_available():
        log.warning("on a GPU ops run in plain torch: %s", reason)
    return True


LOADED = load(BUILT)


def is_available(device: str | torch.device = "cpu") -> bool:
    """Whether ops on this device run in the extension, and not in plain torch."""
    kind = torch.device(device).type
    return LOADED and (kind == "cpu" or (kind == "cuda" and torch.ops.dlmdecode.has_cuda()))


def register(name: str, reference: Callable[..., R], fake: Callable) -> Callable[..., R]:
    """The op `name` as a function: the kernel for its first argument's device, else `reference`.

    reference: the op in plain torch. Its parameters are those of the schema in `csrc/ops.cpp`.
    fake: the same parameters; gives empty results, whose shapes and dtypes `torch.compile` and
        export read.

    Raises ImportError where the extension was built from older sources.
    """
    kernel = getattr(torch.ops.dlmdecode, name).default if found(name, reference) else reference

    @functools.wraps(reference)
    def run(*arguments: Any) -> R:
        chosen = kernel if is_available(arguments[0].device) else reference
        return chosen(*arguments)

    if kernel is not reference:
        torch.library.register_fake(f"dlmdecode::{name}", fake)
    return run


def found(name: str, reference: Callable) -> bool:
    """Whether the extension is there; then it has the op, with the arguments of `reference`."""
    if not LOADED:
        return False
    op = getattr(torch.ops.dlmdecode, name, None)
    has = op and [argument.name for argument in op.default._schema.arguments]
    if has != list(inspect.signature(reference).parameters):
        raise ImportError(
            f"{BUILT} is older than the Python code ({'another' if op else 'no'} op {name}): build "
            "it again with pip install --no-build-isolation -e ."
        )
    return True
