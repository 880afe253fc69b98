"""dlmdecode: decoding for diffusion language models.

import dlmdecode

question = "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many apples does Tom have?"
out = dlmdecode.generate("tiny", question, sampler="prophet")
print(out.texts[0])
"""

from importlib import import_module
from typing import Any

from dlmdecode.composition import sampler
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.positions import Span
from dlmdecode.decoding.proposal import Proposal
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.decoding.trace import Step, Trace
from dlmdecode.engine import Engine
from dlmdecode.generation import Generation, generate, infill, stream
from dlmdecode.models.loading import load
from dlmdecode.models.wrap import wrap
from dlmdecode.parts.blocks import FixedBlocks, WholeCanvas
from dlmdecode.parts.select import Threshold, TopK
from dlmdecode.registry import list_samplers, register_sampler
from dlmdecode.voting import best_of, vote

__version__ = "0.1.0"
__all__ = [
    "Canvas",
    "Engine",
    "FixedBlocks",
    "Generation",
    "Proposal",
    "Sampler",
    "Span",
    "Step",
    "Threshold",
    "TopK",
    "Trace",
    "WholeCanvas",
    "best_of",
    "generate",
    "infill",
    "list_samplers",
    "load",
    "register_sampler",
    "sampler",
    "speculate",
    "stream",
    "vote",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Speculation and evaluations are imported when first asked for: they bring more with them."""
    if name == "speculate":
        return import_module("dlmdecode.speculation").speculate
    if name in ("evals", "speculation"):
        return import_module(f"dlmdecode.{name}")
    raise AttributeError(f"module 'dlmdecode' has no attribute {name!r}")
