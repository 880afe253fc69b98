"""The compiled ops: loading them, and their shapes for `torch.compile` and export."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

OPS = ("propose", "credit", "commit", "topm", "candidates", "count_ngrams", "path_search")


def load(path: Path) -> bool:
    """Load the extension if it was built and is wanted; one that is broken raises its own error.

    Raises:
        ImportError: it was built from older sources.
    """
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
    missing = [name for name in OPS if not hasattr(torch.ops.dlmdecode, name)]
    if missing:
        raise ImportError(
            f"{path} is older than the Python code (no op {missing[0]}): build it again with "
            "pip install --no-build-isolation -e ."
        )
    return True


def is_available(device: str | torch.device = "cpu") -> bool:
    """Whether ops on this device run in the extension, and not in plain torch."""
    kind = torch.device(device).type
    return LOADED and (kind == "cpu" or (kind == "cuda" and torch.ops.dlmdecode.has_cuda()))


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

    @torch.library.register_fake("dlmdecode::commit")
    def _(tokens, *rest):
        return tokens.new_empty(tokens.shape[0])

    @torch.library.register_fake("dlmdecode::topm")
    def _(logits, m):
        shape = (logits.shape[0], m)
        return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(
            shape, dtype=torch.float32
        )

    @torch.library.register_fake("dlmdecode::candidates")
    def _(ids, log_prob, *rest):
        return torch.empty_like(ids), torch.empty_like(log_prob), ids.new_empty(len(ids))

    @torch.library.register_fake("dlmdecode::count_ngrams")
    def _(ids, order):
        size = torch.library.get_ctx().new_dynamic_size
        keys = ids.new_empty(size())
        return keys, torch.empty_like(keys, dtype=torch.float32), ids.new_empty(size())

    @torch.library.register_fake("dlmdecode::path_search")
    def _(ids, *rest):
        length = torch.library.get_ctx().new_dynamic_size()
        return ids.new_empty(length), ids.new_empty((), dtype=torch.float64)


BUILT = Path(__file__).parents[1] / "_C.abi3.so"
LOADED = load(BUILT)
if LOADED:
    register_fakes()
