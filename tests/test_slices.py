"""Logits of many positions are made and read slice by slice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import micro, prompts

import dlmdecode
from dlmdecode.decoding import forward
from dlmdecode.decoding.positions import Scattered, Span

OPTIONS = {"max_new_tokens": 24, "block_length": 8, "eos": "ignore"}


class Largest(TorchDispatchMode):
    """The most numbers of a tensor that was made with one column for each token."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape[-1:] == (self.vocabulary,):
            self.rows = max(self.rows, out.numel() // self.vocabulary)
        return out


def rows_of_logits(model: Any, sampler: str, **options: Any) -> tuple[torch.Tensor, int]:
    """The sequences, and the most rows of logits that one tensor held."""
    with Largest(model.vocab_size) as largest:
        out = dlmdecode.generate(model, prompts(5, 2, 9), sampler, **OPTIONS | options)
    return out.sequences, largest.rows


@pytest.fixture
def six_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "SLICE_BYTES", 6 * 4 * micro("llada").vocab_size)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7, "seed": 3, "top_k": 9, "top_p": 0.9},
        {"cache": "dual"},
        {"cfg_scale": 0.5},
        {"repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_no_tensor_holds_logits_of_more_positions_than_a_slice(options, request):
    whole, most = rows_of_logits(micro("llada"), "dream", block_length=None, **options)
    request.getfixturevalue("six_rows")
    same, few = rows_of_logits(micro("llada"), "dream", block_length=None, **options)
    assert torch.equal(whole, same)
    assert few <= 6 < 3 * 24 <= most


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("sampler", ["threshold", "hierarchy", "freedave", "klass", "acfg", "wino"])
def test_slices_change_no_text(family, sampler, request):
    if (family, sampler) == ("dream", "wino"):
        pytest.skip("its model shifts no logits")
    whole, _ = rows_of_logits(micro(family), sampler)
    request.getfixturevalue("six_rows")
    same, _ = rows_of_logits(micro(family), sampler)
    assert torch.equal(whole, same)


@pytest.mark.parametrize(
    "positions",
    [
        Span(torch.tensor([2, 0, 5]), torch.tensor([9, 3, 5])),
        Scattered(torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) < 0.6),
    ],
)
def test_parts_of_positions_are_their_columns(positions):
    every = torch.arange(12).expand(3, -1)
    for count in (1, 2, 4):
        parts = [positions.part(first, count) for first in range(0, positions.width, count)]
        real = torch.cat([part.real for part in parts], 1)[:, : positions.width]
        at = torch.cat([part.at for part in parts], 1)[:, : positions.width]
        assert torch.equal(real, positions.real)
        assert torch.equal(at[real], positions.at[real])
        held = torch.stack([part.contains(every) for part in parts])
        assert torch.equal(held.sum(0), positions.contains(every).long())
