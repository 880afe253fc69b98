"""A recipe reads what it says it reads: whatever else it is shown, its text is the same."""

from __future__ import annotations

import pytest
import torch
from test_samplers import BLOCK, CACHED, LENGTH, UNSHIFTED, WINDOWED, options
from torch import Tensor
from toy import FAMILIES, VOCAB, micro, prompts

import dlmdecode
from dlmdecode.call import forward_of
from dlmdecode.decoding.canvas import Canvas, Proposal
from dlmdecode.decoding.loop import denoise
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.settings import Settings


def declared(canvas: Canvas, recipe: Sampler) -> Tensor:
    """Positions whose proposals the recipe may read before they are computed again, (B, L) bool."""
    where = canvas.text if recipe.reads_canvas else canvas.block
    return where if recipe.reads_committed else where & canvas.masked


def garbage(like: Proposal) -> Proposal:
    """Tokens, probabilities, margins and entropies that no model gave."""
    shape = like.token.shape
    token = torch.randint(0, VOCAB - 2, shape)
    return Proposal(token, torch.rand(shape).double(), 9 * torch.rand(shape), torch.rand(shape))


def decoded(
    recipe: Sampler, family: str, cache: str, spoil: bool, suffix: int | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens of each row and its number of steps."""
    model = micro(family)
    recipe = recipe.bind(model)
    canvas = Canvas.of(prompts(5, 2, 9), LENGTH, model.mask_id, model.eos_ids, suffix=suffix)
    for opening in recipe.openings:
        opening(canvas)
    tokens, steps = canvas.tokens.clone(), canvas.step.clone()
    for rows in denoise(forward_of(model, recipe, Settings(cache=cache)), canvas, recipe):
        tokens[rows.row], steps[rows.row] = rows.tokens, rows.step
        if spoil:
            kept, old, new = declared(rows, recipe), rows.proposal, garbage(rows.proposal)
            pairs = zip(vars(old).values(), vars(new).values(), strict=True)
            rows.proposal = Proposal(*(torch.where(kept, mine, other) for mine, other in pairs))
    return tokens, steps


@pytest.mark.parametrize(
    "name, cache, family",
    [  # families in turn; some samplers refuse shifted logits
        (name, cache, "llada" if name in UNSHIFTED else FAMILIES[i % len(FAMILIES)])
        for i, (name, cache) in enumerate(CACHED)
    ],
)
def test_no_proposal_is_read_that_was_not_declared(name, cache, family):
    context = {"max_new_tokens": LENGTH, "block_length": BLOCK, "steps": None, "temperature": 0.0}
    recipe = dlmdecode.sampler(name, family=family, context=context, **options(name))
    plain, spoilt = (decoded(recipe, family, cache, spoil) for spoil in (False, True))
    assert torch.equal(plain[0], spoilt[0]) and torch.equal(plain[1], spoilt[1])


@pytest.mark.parametrize("name, cache", WINDOWED)
def test_so_it_is_with_a_suffix_window(name, cache):
    context = {"max_new_tokens": LENGTH, "block_length": BLOCK, "steps": None, "temperature": 0.0}
    recipe = dlmdecode.sampler(name, family="llada", context=context, **options(name))
    if recipe.reads_canvas or name == "wino":
        pytest.skip("refused with a suffix window")
    plain, spoilt = (decoded(recipe, "llada", cache, spoil, suffix=2) for spoil in (False, True))
    assert torch.equal(plain[0], spoilt[0]) and torch.equal(plain[1], spoilt[1])


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_a_recipe_that_reads_more_than_it_says_is_found(cache):
    class Eavesdropper(Selection):
        """Commits much or little, as the entropy at the first prompt token says."""

        def __call__(self, canvas):
            return canvas.open & (canvas.proposal.entropy[:, :1] > 0.5)

    recipe = Sampler(Eavesdropper(), dlmdecode.FixedBlocks(BLOCK))
    plain, spoilt = (decoded(recipe, "llada", cache, spoil) for spoil in (False, True))
    assert not torch.equal(plain[1], spoilt[1])
