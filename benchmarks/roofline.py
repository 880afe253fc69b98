"""What a step of a published shape costs over reading its weights once.

    python benchmarks/roofline.py --device cuda --output benchmarks/results/roofline.md
    python benchmarks/roofline.py --layers 2 --dtype float32 --max-new-tokens 64       # on a CPU

At batch 1 a forward of a block has to read every weight and does little else: weights ÷ bandwidth
is the least time that a step can take. The weights are random ones in the shape of a published
checkpoint; the table of embeddings, of which a step reads rows, does not count. The
bandwidth is that of a large copy on the same device, bytes read and written, in the same run. A
step is the wall time of a text over its forwards, one token a forward, with all that `generate`
does; among them are the forwards of the whole canvas with which a cache begins a block.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import Table, command, prompts

import dlmdecode
from dlmdecode.models.compiling import check_compile, compile_blocks
from dlmdecode.models.config import Config
from dlmdecode.models.families import family_of
from dlmdecode.models.loading import find_folder
from dlmdecode.models.published import PUBLISHED
from dlmdecode.models.transformer import Transformer

HEAD = ("shape", "tokens", "cache", "blocks", "steps", "ms a step", "of the bandwidth", "ratio")
DEPTH = ("n_layers", "num_hidden_layers")


def shaped(name: str, layers: int | None, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A published shape, or a checkpoint's, with random weights and all layers or fewer."""
    values = dict(PUBLISHED.get(name) or Config.read(find_folder(name) / "config.json"))
    if "num_experts" in values:
        raise SystemExit(f"--shape {name}: a step reads some of its experts; give one without")
    if layers:
        values |= {field: layers for field in DEPTH if field in values}
    config = Config.of(values)
    torch.manual_seed(0)
    with torch.device("meta"):
        model = family_of(config)(config)
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.02)
    size = model.vocab_size
    model.mask_id, model.eos_ids = size - 1, (size - 2,)
    return model


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Wall time of a call, the median, everything on the device done."""

    def once() -> float:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()  # warm-up
    return statistics.median(once() for _ in range(repeats))


def where(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy, those read and those written."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, 9)


def read_whole(model: Transformer) -> int:
    """Bytes of the weights that every forward reads: all but the table of embeddings."""
    table = model.embedding.weight
    return sum(weight.nbytes for weight in model.parameters() if weight is not table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="LLaDA-8B", help="a published one, or a folder")
    parser.add_argument("--layers", type=int, help="only so many of its layers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--prompt", type=int, default=64, help="tokens (64)")
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--caches", nargs="+", default=["dual", "prefix", "none"])
    parser.add_argument("--compile", action="store_true", help="also with compiled blocks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a page of results, gone on with")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    model = shaped(options.shape, options.layers, device, dtype)
    least = read_whole(model) / bandwidth(device)
    layers = f", {options.layers} layers" if options.layers else ""
    name = f"{options.shape}{layers}, {options.dtype} on {where(device)}"
    size = f"{options.prompt} + {options.max_new_tokens}"
    given: dict[str, Any] = {
        "prompt": prompts(1, options.prompt, model.vocab_size),
        "max_new_tokens": options.max_new_tokens,
        "block_length": options.block_length,
        "sampler": "threshold",
        "threshold": 2.0,  # never reached: a token a forward
        "eos": "ignore",
    }
    table = Table(options.output, f"# A step over reading the weights once\n\n{command()}", HEAD)
    for blocks in ("as they are", "compiled") if options.compile else ("as they are",):
        if blocks == "compiled":
            check_compile(True, device, None)
            compile_blocks(model)
        for cache in options.caches:
            if table.done(name, size, cache, blocks):
                continue
            steps = int(dlmdecode.generate(model, cache=cache, **given).nfe[0])
            run = functools.partial(dlmdecode.generate, model, cache=cache, **given)
            step = seconds(run, device, options.repeats) / steps
            times = (round(1e3 * step, 3), round(1e3 * least, 3), round(step / least, 2))
            table.add(name, size, cache, blocks, steps, *times)


if __name__ == "__main__":
    main()
