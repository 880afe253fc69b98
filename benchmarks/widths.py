"""Layers of each family at their published width: written, loaded, decoded and deleted.

python benchmarks/widths.py [SIZE …] [--layers N] [--folder DIR]

A layer of a real checkpoint has shapes that micro models have not: gigabytes of experts, heads that
do not make up the width, a vocabulary's rest. Weights are random, in bfloat16, and are written and
read a file at a time. The vocabulary is cut to 4096 rows. Prints millions of numbers, seconds of
the processor for all of it and for loading alone, forwards, and the memory of its own that the
process holds with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

import dlmdecode
from dlmdecode.commands.models import outline
from dlmdecode.models.config import Config
from dlmdecode.models.published import PUBLISHED

ROWS = 4096
SHARD = 2**26  # numbers of a file: 128 MiB
DEPTH = ("n_layers", "num_hidden_layers")
VOCABULARY = {"vocab_size": ROWS, "embedding_size": ROWS}
IDS = {"mask_token_id": ROWS - 1, "eos_token_id": ROWS - 2, "pad_token_id": ROWS - 2}


def shrunk(size: str, layers: int) -> Config:
    """The configuration with a few layers, of the kind that most are, and a small vocabulary."""
    values = PUBLISHED[size]
    cut = dict.fromkeys(DEPTH, layers) | {"first_k_dense_replace": 0} | VOCABULARY
    fields = {name: value for name, value in cut.items() if name in values}
    return Config({**values, **fields, **IDS, "torch_dtype": "bfloat16"})


def write(folder: Path, config: Config) -> int:
    """A checkpoint of random weights, file by file; how many numbers it has."""
    files = list(shards({name: tuple(one.shape) for name, one in outline(config).items()}))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for number, shapes in enumerate(files, 1):
        weights = {name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}
        weights = {
            name: torch.ones_like(one) if one.dim() == 1 and "bias" not in name else one
            for name, one in weights.items()
        }
        stored = {name: one.bfloat16() for name, one in weights.items()}
        save_file(stored, folder / f"model-{number:05}-of-{len(files):05}.safetensors")
    return sum(torch.Size(shape).numel() for shapes in files for shape in shapes.values())


def shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors in groups of at most `SHARD` numbers, or of one tensor."""
    group: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        held = sum(torch.Size(one).numel() for one in group.values())
        if group and held + torch.Size(shape).numel() > SHARD:
            yield group
            group = {}
        group[name] = shape
    yield group


def own_memory() -> float:
    """GiB that the process holds now and that are no file's pages (Linux)."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+)", status)
    return int(kilobytes) / 2**20


def check(size: str, layers: int, home: Path) -> str:
    """Write, load, decode and delete; a line of the table."""
    folder, began = home / size, time.process_time()
    try:
        numbers = write(folder, shrunk(size, layers))
        ready = time.process_time()
        model = dlmdecode.load(folder, device="cpu")
        loading, held = time.process_time() - ready, own_memory()
        out = dlmdecode.generate(model, torch.arange(37), max_new_tokens=12, eos="ignore")
        assert not (out.sequences == model.mask_id).any()
        del model
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.process_time() - began
    counts = f"{numbers / 1e6:8.0f} {seconds:8.1f} {loading:8.2f} {out.nfe[0]:9}"
    return f"{size:20} {counts} {held:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="*", help=f"of {', '.join(PUBLISHED)}; all if none is given")
    parser.add_argument("--layers", type=int, default=1, help="of each (1)")
    parser.add_argument("--folder", type=Path, help="where to write, temporarily")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'size':20} {'10^6':>8} {'cpu s':>8} {'load':>8} {'forwards':>9} {'own GiB':>9}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as home:
        for size in arguments.size or PUBLISHED:
            torch.manual_seed(0)
            print(check(size, arguments.layers, Path(home)), flush=True)


if __name__ == "__main__":
    main()
