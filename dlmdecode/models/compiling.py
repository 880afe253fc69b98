"""Blocks that are compiled by torch.compile, whatever cache stands between their halves."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch

from dlmdecode.checks import require
from dlmdecode.models.transformer import Transformer


def check_compile(compile: bool, device: torch.device, quantize: str | None) -> None:
    """Raise `ValueError` for what is no bool, and where there is nothing to compile with."""
    require(isinstance(compile, bool), "compile", compile, "give True or False")
    if not compile:
        return
    require(
        quantize is None, "compile", compile, "packed weights run as they are: give one of both"
    )
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        fix = "it needs a C++ compiler: install g++, or name another one in CXX"
        require(shutil.which(compiler) is not None, "compile", compile, fix)
    else:
        there = find_spec("triton") is not None
        require(there, "compile", compile, f"on {device.type} it needs triton: pip install triton")


def compile_blocks(model: Transformer) -> None:
    """Compile both halves of each block, for sizes that vary.

    A key/value hook is called between the halves, uncompiled: so any cache works, and layers share
    what was compiled. Nothing is compiled before the first forwards, which take seconds.
    """
    for block in model.blocks:
        for half in ("before_cache", "behind_cache"):
            setattr(block, half, torch.compile(getattr(block, half), dynamic=True))
