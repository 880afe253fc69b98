"""The rotary position code, and the places where configurations keep its settings.

transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters` with both.
Scaled codes (linear, dynamic, yarn, llama3, longrope) are refused by name: no published diffusion
checkpoint has one, and unscaled they would give wrong text without a word.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlmdecode.models.config import Config

THETA = 10000.0  # of the published configuration classes, which leave a default out of the file
PLACES = ("rope_parameters", "rope_scaling")
KNOWN = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def rotary(position: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine (N, 1, W, dim) of the "rotate half" position code, in float32.

    The first half of the sine is negative, as `rotate` wants it.
    """
    exponent = torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim
    angle = position[:, None, :, None].float() * theta**-exponent
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the position code to (N, H, W, D/H) in float32, whatever the model's dtype.

    A code of fewer numbers than a head has turns the first ones, and the others pass.
    """
    dim = cos.shape[-1]
    turned = x[..., :dim].float()
    turned = (turned * cos + turned.roll(dim // 2, -1) * sin).to(x.dtype)
    return turned if dim == x.shape[-1] else torch.cat([turned, x[..., dim:]], -1)


def rope_theta(config: Config, partial: bool = False) -> float:
    """The base of the rotary code; `ValueError` for a scaled code and for two that disagree.

    Unless `partial`, a code that turns a part of a head is refused, too.
    """
    stated = {"rope_theta": config}
    for place in PLACES:
        values = config.get(place)
        config.require(values is None or isinstance(values, dict), place, "it must be an object")
        settings = Config(values or {})
        settings.path = config.path / place  # so an error names the field around it
        check_unscaled(settings)
        refuse_partial(settings, partial)
        stated[f"{place}.rope_theta"] = settings
    found = {
        name: settings.number("rope_theta")
        for name, settings in stated.items()
        if settings.get("rope_theta") is not None
    }
    if len(set(found.values())) > 1:
        listed = " and ".join(f"{name}={value}" for name, value in found.items())
        raise ValueError(f"{config.path}: {listed} disagree; keep the one it was trained with")
    refuse_partial(config, partial)
    return next(iter(found.values()), THETA)


def check_unscaled(settings: Config) -> None:
    for name in ("rope_type", "type"):
        fits = settings.get(name) in (None, "default")
        settings.require(fits, name, "scaled rotary codes are not implemented; 'default' is")
    for name in sorted(settings.keys() - KNOWN):
        settings.require(settings[name] is None, name, "it has no meaning for rope_type='default'")


def refuse_partial(settings: Config, partial: bool) -> None:
    if not partial:
        settings.refuse_unsupported({"partial_rotary_factor": (1.0,)})


def rotary_dim(config: Config, size: int) -> int:
    """How many of a head's `size` numbers are rotated; `ValueError` where two fields disagree."""
    stated = {}
    for place in ("", *PLACES):
        settings = Config((config.get(place) or {}) if place else config)
        if settings.get("partial_rotary_factor") is not None:
            name = f"{place}.partial_rotary_factor".removeprefix(".")
            factor = settings.number("partial_rotary_factor")
            settings.require(factor <= 1, "partial_rotary_factor", "it must be at most 1")
            stated[name] = int(size * factor)
    if config.get("rotary_dim") is not None:
        stated["rotary_dim"] = config.count("rotary_dim")
    if len(set(stated.values())) > 1:
        listed = " and ".join(f"{name} gives {value}" for name, value in stated.items())
        raise ValueError(f"{config.path}: {listed} of {size}: keep the one it was trained with")
    dim = next(iter(stated.values()), size)
    if dim % 2 or not 0 < dim <= size:
        raise ValueError(f"{config.path}: {dim} numbers of {size} cannot be rotated in pairs")
    return dim
