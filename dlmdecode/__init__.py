"""dlmdecode: decoding for diffusion language models.

import dlmdecode

out = dlmdecode.generate("tiny", "Tom has 3 apples. He buys 4 more.", sampler="prophet")
"""

# models
# generation
from dlmdecode.blocks import FixedBlocks, WholeCanvas

# what samplers are made of
from dlmdecode.canvas import Canvas, Proposal, Span
from dlmdecode.generation import Generation, generate, stream
from dlmdecode.models.loading import load
from dlmdecode.models.wrap import wrap
from dlmdecode.registry import list_samplers, register_sampler, sampler
from dlmdecode.sampler import Sampler
from dlmdecode.select import Threshold, TopK
from dlmdecode.trace import Step, Trace

__version__ = "0.1.0"
__all__ = [
    "Canvas",
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
    "generate",
    "list_samplers",
    "load",
    "register_sampler",
    "sampler",
    "stream",
    "wrap",
]
