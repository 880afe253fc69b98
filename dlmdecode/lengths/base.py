"""Rules by which a text grows or shrinks while it is written, by name.

    @LENGTHS.register("mine", paper="arXiv 2601.00001")
    def mine(room: Room, initial: Count | None = None) -> Sampler:
        "One line of help."
        return Sampler(openings=(InitialLength(room.first(initial)),), revisions=(…,))

A rule is a recipe for one call, to be merged with the sampler's. The parameters after the first are
its options: `length="mine,initial=32"`. Packages offer rules by the entry points
`dlmdecode.lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmdecode.checks import require
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Opening
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.parts.blocks import FixedBlocks, WholeCanvas
from dlmdecode.plugins import Registry

INITIAL = 64
LENGTHS: Registry[Sampler] = Registry("length", "dlmdecode.lengths", given=1)


@dataclass(frozen=True)
class Room:
    """What a rule has to work with.

    Attributes:
        most: tokens that a text has at most.
        block_length: positions of a block; None is one block over the whole text.
    """

    most: int
    block_length: int | None

    def first(self, initial: int | None) -> int:
        """The initial length; None is 64, or all there is room for.

        Raises `ValueError` for one that a text cannot have.
        """
        if initial is None:
            return min(INITIAL, self.most)
        fix = f"the text has at most max_new_tokens={self.most} tokens"
        require(initial <= self.most, "initial", initial, fix)
        return initial

    def left(self, canvas: Canvas) -> Tensor:
        """By how many positions each row's text may grow, (B,)."""
        return canvas.limit - canvas.stop

    def reopen(self, canvas: Canvas) -> None:
        """Give an open block the length that the text's new end leaves it."""
        end = canvas.stop
        if self.block_length is not None:
            end = torch.minimum(canvas.lo + self.block_length, end)
        canvas.hi = torch.where(canvas.block_full, canvas.hi, end)


@dataclass(frozen=True)
class InitialLength(Opening):
    """The text has `length` masks at first."""

    length: int

    def __call__(self, canvas: Canvas) -> None:
        canvas.truncate(canvas.start + self.length)


def eos_confidence(canvas: Canvas, count: int) -> Tensor:
    """Mean probability of the last `count` proposals of EOS, (B,) float32; missing ones are 0.

    Those at positions already written count, too.
    """
    ends = canvas.is_eos(canvas.proposal.token) & canvas.text
    last = ends & (ends.flip(1).cumsum(1).flip(1) <= count)
    return (canvas.proposal.prob * last).sum(1).float() / count


def length_of(spec: str, most: int, recipe: Sampler, model: object) -> Sampler:
    """The rule that `spec` means, for a recipe and its model.

    Raises:
        ValueError: unknown name or option, or a recipe or model that it cannot work with.
    """
    blocks = recipe.blocks
    known = type(blocks) in (FixedBlocks, WholeCanvas)
    fix = f"{type(blocks).__name__} has blocks of other lengths: use a sampler without"
    require(known, "length", spec, fix)
    fix = f"{type(recipe.evaluate).__name__} is a forward of its own, which knows one length"
    require(recipe.evaluate is None, "length", spec, fix)
    fix = "this model does not see the end of the text before it gets there"
    require(getattr(model, "block_length", None) is None, "length", spec, fix)
    entry, options = LENGTHS.parse(spec)
    room = Room(most, blocks.length if isinstance(blocks, FixedBlocks) else None)
    return entry.make(room, **entry.conformed(options))
