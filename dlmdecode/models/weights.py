"""The safetensors of a checkpoint: which files, what is in them, and a model filled from them.

Headers are read before a model is built, so that a wrong configuration fails at once and by name;
tensors are read one at a time and straight to their device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlmdecode.models.config import Config
from dlmdecode.models.quantize import Quantization, pack
from dlmdecode.models.transformer import Transformer

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
# Buffers that older code stored and every loader computes instead.
REDUNDANT = re.compile(
    r"(rotary_emb\.(original_)?inv_freq|(cos|sin)_cached|masked_bias|position_ids)$"
)


@dataclass(frozen=True)
class Stored:
    """A tensor as a file's header describes it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, what its index names, or all its shards.

    In this order, as for transformers, which leaves an index behind where it saves one file later.
    """
    index = folder / "model.safetensors.index.json"
    indexed = indexed_names(index) if index.is_file() else []
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if lost := [name for name in indexed if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder}: the index names {', '.join(lost[:3])}, which is not there"
        )
    if indexed:
        return [folder / name for name in indexed]
    shards = [match for path in folder.iterdir() if (match := SHARD.fullmatch(path.name))]
    if shards:
        check_shards(folder, shards)
        return sorted(folder / shard[0] for shard in shards)
    pickled = [p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern)]
    if pickled:
        raise ValueError(
            f"{folder} has pickled weights only ({', '.join(sorted(pickled)[:3])}); loading a "
            "pickle can run code, so convert them to safetensors first"
        )
    others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:3])
    beside = f" and no shards of one, only {others}" if others else ""
    raise FileNotFoundError(f"{folder} holds no model.safetensors{beside}")


def indexed_names(path: Path) -> list[str]:
    """The files of an index, which must lie beside it: it may come from anywhere."""
    index = Config.read(path)
    places = index.known("weight_map", None)
    is_map = isinstance(places, dict) and len(places) > 0
    named = is_map and all(isinstance(name, str) for name in places.values())
    index.require(named, "weight_map", "it must be an object of tensor names and their files")
    names = sorted(set(places.values()))
    for name in names:
        plain = name == Path(name).name and "\\" not in name and name.endswith(".safetensors")
        if not plain:
            raise ValueError(f"{path} names {name!r}: shards are .safetensors files beside it")
    return names


def check_shards(folder: Path, shards: list[re.Match[str]]) -> None:
    """Refuse shards of which some are missing, or of two checkpoints."""
    totals = {int(shard[2]) for shard in shards}
    if len(totals) > 1:
        listed = ", ".join(sorted(shard[0] for shard in shards)[:4])
        raise ValueError(f"{folder} has shards of several checkpoints ({listed}) and no index")
    (total,), found = totals, {int(shard[1]) for shard in shards}
    beyond = sorted(i for i in found if not 1 <= i <= total)
    if beyond:
        raise ValueError(f"{folder} has a shard {beyond[0]} of {total}: shards are numbered from 1")
    missing = list(islice((i for i in count(1) if i not in found), min(total - len(found), 3)))
    if missing:
        width = len(shards[0][1])
        names = [f"model-{i:0{width}}-of-{shards[0][2]}.safetensors" for i in missing]
        raise FileNotFoundError(f"{folder} lacks the shard {', '.join(names)}")


@contextmanager
def opened(file: Path, device: str = "cpu") -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", device=device) as tensors:
            yield tensors
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error


def headers(files: list[Path]) -> dict[str, Stored]:
    """What is stored under each name; `ValueError` for a name in two files."""
    found: dict[str, Stored] = {}
    for file in files:
        with opened(file) as tensors:
            for name in tensors.keys():
                if name in found:
                    raise ValueError(f"{name!r} is both in {found[name].file} and in {file.name}")
                part = tensors.get_slice(name)
                found[name] = Stored(file, name, tuple(part.get_shape()), part.get_dtype())
    return {name: one for name, one in found.items() if not REDUNDANT.search(name)}


def tensors(files: list[Path], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the files, by name."""
    yield from read(headers(files), device)


def read(stored: dict[str, Stored], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """The tensors themselves, each file opened once."""
    for file in dict.fromkeys(one.file for one in stored.values()):
        with opened(file, str(device)) as part:
            for name, one in stored.items():
                if one.file == file:
                    yield name, part.get_tensor(one.name)


def reconcile(kind: type[Transformer], config: Config, stored: dict[str, Stored]) -> Config:
    """The configuration as the weights have it, checked against their headers.

    A tied head may be stored as well. As in transformers 5, one that differs from the embedding
    is used, and an embedding stored under the head's name only is the embedding.
    """
    layers = {
        name.removeprefix(kind.layer_names).split(".")[0]
        for name in stored
        if name.startswith(kind.layer_names)
    }
    hold = f"the weights hold {len(layers)} layers {kind.layer_names}N"
    hold += "" if layers else f", but for instance {next(iter(stored), None)!r}"
    config.require(config.count(kind.layers_field) == len(layers), kind.layers_field, hold)
    if not config.flag(kind.tied_field) or kind.head_name not in stored:
        return config
    if kind.embedding_name not in stored:
        stored[kind.embedding_name] = stored.pop(kind.head_name)
        return config
    both = {name: stored[name] for name in (kind.head_name, kind.embedding_name)}
    readable = all(one.dtype in FLOATS for one in both.values())  # else `check` refuses it
    if not (readable and torch.equal(*dict(read(both, torch.device("cpu"))).values())):
        return config.but(**{kind.tied_field: False})
    del stored[kind.head_name]
    return config


def check(model: Transformer, config: Config, stored: dict[str, Stored]) -> None:
    """Refuse weights that are not exactly those of the model, before any is read."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, one in stored.items():
        if name not in expected:
            raise ValueError(f"{one.file}: unexpected tensor {name!r} for this architecture")
        if one.shape != expected[name]:
            raise ValueError(
                f"{one.file}: tensor {name!r} has shape {one.shape}, but {config.path} implies "
                f"{expected[name]}"
            )
        if one.dtype not in FLOATS:
            raise ValueError(
                f"{one.file}: tensor {name!r} is stored as {one.dtype}, and only "
                f"{', '.join(FLOATS)} are read: load the checkpoint that it was made of, with "
                'quantize="int8" or "int4"'
            )
    missing = [name for name in expected if name not in stored]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{config.path.parent}: missing tensors {', '.join(missing[:3])}{more}")


def dtypes_of(
    model: Transformer, stored: Mapping[str, Stored], dtype: torch.dtype | None
) -> dict[str, torch.dtype]:
    """What each tensor becomes: `dtype`, or as it is stored; float32 where the family says so."""
    return {
        name: torch.float32
        if name.rpartition(".")[2] in model.float32_names
        else dtype or FLOATS[one.dtype]
        for name, one in stored.items()
    }


def fill(
    model: Transformer,
    stored: dict[str, Stored],
    devices: Mapping[str, torch.device],
    dtypes: Mapping[str, torch.dtype],
    quantization: Quantization | None = None,
) -> None:
    """Give a model made on the meta device its tensors, each on its device and as its dtype.

    One that is packed is so before the next is read: no more than one is held in float.
    """
    state = {}
    for device in dict.fromkeys(devices.values()):
        here = {name: one for name, one in stored.items() if devices[name] == device}
        for name, value in read(here, device):
            value = value.to(dtypes[name])
            if quantization is not None and name in quantization.packed:
                value = pack(value, quantization.kind)
            state[name] = value
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False)
