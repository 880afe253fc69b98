"""From a name or a folder to a model: configuration, safetensors, tokenizer. Never remote code.

model = load("tiny")                          # the embedded default
model = load("GSAI-ML/LLaDA-8B-Instruct")     # a hub id
model = load("checkpoints/my-dream")          # a local folder in Hugging Face layout
model = load("tiny", quantize="int8")         # its blocks' weights packed as they are read
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dlmdecode.checks import require
from dlmdecode.models.compiling import check_compile, compile_blocks
from dlmdecode.models.config import Config
from dlmdecode.models.families import EMBEDDED, family_of, find_family
from dlmdecode.models.placement import (
    DeviceMap,
    attach,
    check_device_map,
    devices_of,
    places_of,
    spread,
)
from dlmdecode.models.quantize import (
    check_kernels,
    check_quantize,
    plan_quantization,
    refuse_packed,
)
from dlmdecode.models.special_ids import special_ids
from dlmdecode.models.transformer import Transformer
from dlmdecode.models.weights import check, dtypes_of, fill, headers, reconcile, weight_files

# They register their families, in the order in which messages list them.
# isort: off
from dlmdecode.models import (  # noqa: F401
    llada,
    dream,
    sdar,
    dream_reasoner,
    fast_dllm,
    illada,
    llada_moe,
    llada2_moe,
    stable_diffcoder,
)
# isort: on

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "double": torch.float64,
    "float": torch.float32,
    "half": torch.float16,
}
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]


def load(
    name_or_path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    quantize: str | None = None,
    device_map: DeviceMap | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    compile: bool = False,
) -> Transformer:
    """Load a diffusion language model with its tokenizer.

    Args:
        name_or_path: "tiny" (embedded), a hub id, or a folder with `config.json` and safetensors
            (one file, or all its shards).
        device: where to put the weights; None takes the GPU if there is one.
        dtype: "auto" keeps the dtype named in config.json (or else of the weights); a name such as
            "bfloat16", or a `torch.dtype`.
        revision: branch, tag or commit of a hub id.
        quantize: "int8" or "int4" packs the blocks' linear layers as they are read, through torchao
            (`pip install "dlmdecode[quantize]"`); `model.quantization` says which. None packs none.
        device_map: "auto" spreads a model over the GPUs, whole layers on each, through accelerate
            (`pip install "dlmdecode[placement]"`); or devices by names of modules. Not with
            `device`. `model.device_map` says what is where.
        max_memory: under "auto" what each GPU may take, such as {0: "20GiB", 1: "40GiB"}; None is
            90 % of what is free.
        compile: compile the blocks with torch.compile, for sizes that vary: their projections and
            norms up to the keys and values, and attention and MLP behind them. Embedding, head,
            caches and the layers under `cache="dllm"` run as they are, and a step is no CUDA graph.
            The first forwards take seconds. Texts are the same but where two choices are nearly
            tied. Not with `quantize`.

    Returns:
        A `Transformer` in eval mode with `.tokenizer` (None if the folder has none), `.mask_id`,
        `.eos_ids`.

    Raises:
        FileNotFoundError: no such folder or hub id, or no `config.json` or safetensors in it.
        ValueError: unknown architecture, device or dtype; a value of a configuration that is none;
            missing or unexpected tensors; pickled weights, or packed ones; `quantize` without
            torchao, or where it has no kernel for the device or the dtype; a `device_map` without
            accelerate, that misses a tensor, or that the model does not fit: no layer goes to the
            CPU beside a GPU; `compile` without a compiler.
    """
    check_quantize(quantize)
    check_device_map(device_map, device, max_memory)
    target = pick_device(device)
    check_compile(compile, target, quantize)
    folder = find_folder(name_or_path, revision)
    config = Config.read(folder / "config.json")
    kind = family_of(config)
    refuse_packed(config)
    converted = pick_dtype(dtype, config)
    stored = headers(weight_files(folder))
    config = reconcile(kind, config, stored)
    with torch.device("meta"):
        model = kind(config)
    check(model, config, stored)
    model.folder = folder
    model.tokenizer = load_tokenizer(folder, kind)
    generation = Config.read_if_there(folder / "generation_config.json")
    names = kind.mask_tokens, kind.end_tokens, kind.mask_id
    model.mask_id, model.eos_ids = special_ids(
        config, generation, model.tokenizer, model.vocab_size, *names
    )
    dtypes = dtypes_of(model, stored, converted)
    model.quantization = plan_quantization(quantize, model)
    place(model, target, device_map, max_memory, dtypes)
    fill(model, stored, devices_of(model, model.device_map), dtypes, model.quantization)
    if len(set(model.device_map.values())) > 1:
        attach(model)
    if compile:
        compile_blocks(model)
    return model.eval()


def place(
    model: Transformer,
    target: torch.device,
    device_map: DeviceMap | None,
    max_memory: Mapping[int | str, int | str] | None,
    dtypes: Mapping[str, torch.dtype],
) -> None:
    """Give a model its `device_map`, whose devices are there and have what `quantize` needs."""
    packing = model.quantization
    if device_map is None:
        device_map = {"": target}
    elif isinstance(device_map, str):
        device_map = spread(model, dtypes, packing, max_memory)
    places = places_of(model, device_map)
    model.device_map = {part: pick_device(device) for part, device in places.items()}
    for device in set(model.device_map.values()) if packing else ():
        check_kernels(packing.kind, device, {dtypes[name] for name in packing.packed})


def find_folder(name_or_path: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (weights and JSON only)."""
    named = isinstance(name_or_path, (str, os.PathLike))
    require(named, "name_or_path", name_or_path, "give a name, a folder or a hub id")
    name = os.fspath(name_or_path)
    folder = EMBEDDED.get(name, Path(name))
    if folder.is_dir():
        local = f"{name} is a folder on this machine; revisions are those of a hub id"
        require(revision is None, "revision", revision, local)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: it holds no config.json")
        return folder
    if folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        known = ", ".join(map(repr, EMBEDDED))
        raise FileNotFoundError(
            f"no model {name!r}: give an embedded name ({known}), an existing folder, or a hub id "
            "of the form owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name!r} is no local folder, and fetching it from the hub failed: {error}"
        ) from error


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device by its name, tried out; None takes the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fix = f"give {' or '.join(map(repr, usable_devices()))}"
    if not isinstance(device, (str, torch.device)):
        raise ValueError(f"device={device!r}: {fix}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no torch device: {fix}") from error
    if found.type == "cpu":
        return torch.device("cpu")  # safetensors knows no "cpu:0"
    if found.type == "meta":
        raise ValueError(f"device={str(device)!r} holds shapes and no values: {fix}")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ValueError(f"device={str(device)!r} is not there: {fix}") from error
    return found


def usable_devices() -> list[str]:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def pick_dtype(dtype: str | torch.dtype, config: Config) -> torch.dtype | None:
    """The dtype to convert weights to; None keeps them as they are stored."""
    if dtype == "auto":
        field = "dtype" if config.get("dtype") is not None else "torch_dtype"  # its old name
        stated = config.text(field)
        if stated is None:
            return None
        name = stated.removeprefix("torch.")
        config.require(name in DTYPES, field, f"it must be one of {', '.join(DTYPES)}")
    else:
        return named_dtype(dtype)
    return DTYPES[name]


def named_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of a name that is not "auto"."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: give 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def load_tokenizer(folder: Path, kind: type[Transformer] | None = None) -> Any:
    """The checkpoint's tokenizer, as its family reads it; None if it has none.

    Args:
        folder: the checkpoint's.
        kind: the family's class; None takes the one that config.json asks for, if any.

    Raises:
        ValueError: tokenizer files that cannot be read, naming the folder.
    """
    kind = kind or find_family(Config.read_if_there(folder / "config.json")) or Transformer
    try:
        return kind.load_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare ones
        raise ValueError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
