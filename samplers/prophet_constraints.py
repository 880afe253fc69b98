"""Prophet's constraints: tokens that stand on the canvas before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from dlmdecode.checks import Natural, check_id, conform, require, whole
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Opening


@dataclass(frozen=True)
class Constraints(Opening):
    """Tokens that stand on the canvas from the start: (offset in the text, id or text)."""

    fixed: tuple[tuple[int, int | str], ...]

    def bind(self, model: Any) -> Self:
        """Text becomes the ids of `model.tokenizer`, several tokens taking consecutive offsets."""
        ids: list[tuple[int, int | str]] = []
        for offset, what in self.fixed:
            if isinstance(what, int):
                check_id("constraints", what, model)
                ids.append((offset, what))
                continue
            require(
                model.tokenizer is not None, "constraints", what, "give token ids: no tokenizer"
            )
            pieces = model.tokenizer(what, add_special_tokens=False)["input_ids"]
            ids += [(offset + i, piece) for i, piece in enumerate(pieces)]
        return replace(self, fixed=tuple(ids))

    def __call__(self, canvas: Canvas) -> None:
        for offset, token in self.fixed:
            at = canvas.ahead(canvas.start, offset + 1) - 1
            inside = int(canvas.length.min())
            require(
                0 <= offset < inside,
                "constraints",
                {offset: token},
                f"the text has {inside} tokens",
            )
            canvas.tokens = canvas.tokens.scatter(1, at[:, None], int(token))


def checked_constraints(constraints: Any) -> tuple[tuple[int, int | str], ...]:
    """Offsets with what stands there, in order."""
    known = constraints is None or isinstance(constraints, Mapping)
    require(known, "constraints", constraints, "give {offset in the text: token id or text}")
    return tuple(
        (whole("constraints", offset, 0), conform(f"constraints[{offset}]", what, Natural | str))
        for offset, what in sorted((constraints or {}).items())
    )
