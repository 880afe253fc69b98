"""Infilling: some of the text is given, and the gaps in it are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import Count, conform, plain, require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Evaluation
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.models.protocol import Denoiser
from dlmdecode.prompts import beginning, from_array, is_sequence, text_ids
from dlmdecode.settings import Settings, resolve_aliases

REFUSED = {
    "max_new_tokens": "texts have the lengths of these",
    "length": "texts have the lengths of these",
    "stop_strings": "a text goes on behind its end",
    "suffix_tail": "the end that is given is seen anyway",
    "negative_prompt": "there is no prompt alone that it could take the place of",
}
"""Settings that have no meaning where the text has gaps, and why."""


def encode_pieces(pieces: Any, model: Denoiser) -> list[Tensor]:
    """Ids of each row (P,), masks where its gaps are.

    Args:
        pieces: texts, ids (n,) as tensors, and lengths of gaps, in any order; or a list of such
            lists. Pieces that touch are one.

    Raises:
        ValueError: what is no such list, text for a model without a tokenizer.
    """
    known = is_sequence(pieces) and len(pieces) > 0
    require(known, "pieces", pieces, "give a list of texts and lengths of gaps")
    several = all(is_sequence(piece) for piece in pieces)
    return [row_of(row, model) for row in (pieces if several else [pieces])]


def row_of(pieces: Sequence[Any], model: Denoiser) -> Tensor:
    """The ids (P,) of one list of pieces."""
    lacks = "this model has no tokenizer: give ids as tensors"
    found = []
    for i, piece in enumerate(map(from_array, pieces)):
        if isinstance(piece, str):
            require(model.tokenizer is not None, "pieces", piece, lacks)
            ids = text_ids(piece, model, begins=i == 0)
            found.append(torch.tensor(ids, dtype=torch.int64, device=model.device))
        elif isinstance(piece, Tensor) and piece.dim() == 1:
            found.append(piece.to(model.device, None if piece.is_floating_point() else torch.int64))
        else:
            kind = "give texts, lengths of gaps (1 or more) or 1-D tensors of ids"
            usable = isinstance(plain(piece), int)
            require(usable, "pieces", piece, kind)
            count, limit = conform("pieces", piece, Count), model.max_length
            fix = f"the model addresses {limit} positions"
            require(limit is None or count <= limit, "pieces", count, fix)
            start = [] if i else [beginning(model).to(model.device)]
            found += [*start, torch.full((count,), model.mask_id, device=model.device)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=model.device)


def with_lengths(options: Mapping[str, Any], rows: Sequence[Tensor], model: Denoiser) -> dict:
    """The options of a call whose texts are the gaps of `rows`.

    Raises `ValueError` for a length beside them, and where a row is longer than the model's most.
    """
    options = resolve_aliases(options)
    given = options.get("max_new_tokens")
    fix = f"beside gaps {REFUSED['max_new_tokens']}: leave it out"
    require(given is None, "max_new_tokens", given, fix)
    for index, row in enumerate(rows):
        limit = model.max_length
        fix = f"the model addresses {limit} positions"
        require(limit is None or len(row) <= limit, f"row {index}", f"{len(row)} tokens", fix)
    return options | {"max_new_tokens": max(int((row == model.mask_id).sum()) for row in rows)}


def check_infill(settings: Settings, recipe: Sampler, model: Denoiser) -> None:
    """Raise `ValueError` for what does not go together with gaps, of a bound recipe."""
    fix = "the model's attention is causal between blocks: no gap sees what is behind it"
    require(model.block_length is None, "infill", True, fix)
    for part in recipe.parts:
        hides = isinstance(part, Evaluation) and part.hides_end
        fix = f"{type(part).__name__} hides the text behind a gap: use another sampler"
        require(not hides, "infill", True, fix)
    for name in ("length", "stop_strings", "suffix_tail", "negative_prompt"):
        value = getattr(settings, name)
        unset = value is None or (isinstance(value, int) and value == 0)
        require(unset, name, value, f"beside gaps {REFUSED[name]}: leave it out")


def lay_out(canvas: Canvas, forms: Sequence[Tensor]) -> None:
    """Put down what is given in each row's text, `forms` (n,) with masks, and number its gaps."""
    tokens = canvas.tokens.clone()
    for row, start, form in zip(tokens, canvas.start.tolist(), forms, strict=True):
        row[start : start + len(form)] = form
    canvas.tokens = tokens
    gap = canvas.masked
    begins = gap & ~torch.nn.functional.pad(gap, (1, -1))
    canvas.gaps = begins.cumsum(1) * gap
