"""Learn2PD's filter: what it is, and where its weights are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dlmdecode.checks import require

BESIDE_THE_MODEL = "filter.safetensors"


class AcceptanceFilter(nn.Module):
    """Two linear layers from the confidences of a block's `width` positions to logits."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        own: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults
        self.linear1 = nn.Linear(width, hidden, **own)
        self.linear2 = nn.Linear(hidden, width, **own)

    @property
    def width(self) -> int:
        return self.linear1.in_features

    def forward(self, confidence: Tensor) -> Tensor:
        return self.linear2(self.linear1(confidence).relu())

    def save(self, path: str | os.PathLike[str]) -> None:
        save_file(self.state_dict(), path)

    @classmethod
    def of(cls, model: Any) -> AcceptanceFilter:
        """The filter in the folder that `model` was loaded from."""
        folder = model.folder
        path = None if folder is None else folder / BESIDE_THE_MODEL
        if path is None or not path.is_file():
            raise ValueError(
                f"filter=None: {folder or 'the model'} comes with no {BESIDE_THE_MODEL}; give "
                f"learn2pd a safetensors file (python -m training.filter trains one from a model's "
                f"own traces)"
            )
        return cls.load(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AcceptanceFilter:
        """Read `linear1` and `linear2` from a safetensors file."""
        require(Path(path).is_file(), "filter", str(path), "there is no such file")
        weights = load_file(path)
        hidden, width = weights["linear1.weight"].shape
        loaded = cls(width, hidden)
        loaded.load_state_dict(weights)
        return loaded.eval().requires_grad_(False)
