"""From a name or a folder to a model: configuration, safetensors, tokenizer. Never remote code.

model = load("tiny")                          # the embedded default
model = load("GSAI-ML/LLaDA-8B-Instruct")     # a hub id
model = load("checkpoints/my-dream")          # a local folder in Hugging Face layout
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from dlmdecode.checks import closest, require
from dlmdecode.models.config import Config
from dlmdecode.models.dream import Dream
from dlmdecode.models.llada import LLaDA
from dlmdecode.models.special_ids import special_ids
from dlmdecode.models.transformer import Transformer
from dlmdecode.models.weights import check, fill, headers, reconcile, weight_files

ARCHITECTURES: dict[str, type[Transformer]] = {"llada": LLaDA, "Dream": Dream}
BLOCK_CAUSAL = "it writes block by block under a block-causal mask"
# Diffusion families that are not implemented, by model_type or architecture class.
OTHERS = {
    "sdar": BLOCK_CAUSAL,
    "sdar_moe": BLOCK_CAUSAL,
    "Fast_dLLM_Qwen": BLOCK_CAUSAL,
    "StableDiffcoderForCausalLM": BLOCK_CAUSAL,
    "llada2_moe": BLOCK_CAUSAL + " and has experts",
    "llada_moe": "it has experts",
    "lladamoe": "it has experts",
    "LLaDAMoEModelLM": "it has experts",
    "illada": "its network is not LLaDA's",
    "mmada": "it writes images, too",
    "diffusion_gemma": "it starts from random tokens, not from masks: use transformers",
}
EMBEDDED = {name: Path(__file__).parent / name for name in ("tiny", "tiny-dream")}
DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "double", "float", "half")
}
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]


def load(
    name_or_path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
) -> Transformer:
    """Load a diffusion language model with its tokenizer.

    Args:
        name_or_path: "tiny" (embedded), a hub id, or a folder with `config.json` and safetensors
            (one file, or all its shards).
        device: where to put the weights; None takes the GPU if there is one.
        dtype: "auto" keeps the dtype named in config.json (or else of the weights); a name such as
            "bfloat16", or a `torch.dtype`.
        revision: branch, tag or commit of a hub id.

    Returns:
        A `Transformer` in eval mode with `.tokenizer` (None if the folder has none), `.mask_id`,
        `.eos_ids`.

    Raises:
        FileNotFoundError: no such folder or hub id, or no `config.json` or safetensors in it.
        ValueError: unknown architecture, device or dtype; a value of a configuration that is none;
            missing or unexpected tensors; pickled weights.
    """
    target = pick_device(device)
    folder = find_folder(name_or_path, revision)
    config = Config.read(folder / "config.json")
    kind = architecture(config)
    converted = pick_dtype(dtype, config)
    stored = headers(weight_files(folder))
    config = reconcile(kind, config, stored)
    with torch.device("meta"):
        model = kind(config)
    check(model, config, stored)
    model.folder = folder
    model.tokenizer = load_tokenizer(folder, kind.family)
    generation = Config.read_if_there(folder / "generation_config.json")
    model.mask_id, model.eos_ids = special_ids(
        config, generation, model.tokenizer, model.vocab_size
    )
    fill(model, stored, target, converted)
    return model.eval()


def architecture(config: Config) -> type[Transformer]:
    """The class that a configuration asks for by its `model_type`; others are refused by name."""
    kind, known = config.text("model_type"), ", ".join(ARCHITECTURES)
    classes = config.get("architectures") or []
    for name in (kind, *(classes if isinstance(classes, list) else [classes])):
        reason = OTHERS.get(name) if isinstance(name, str) else None
        if reason is not None:
            raise ValueError(
                f"{config.path}: model_type={kind!r} ({name}) is not implemented: {reason}; known "
                f"are {known}"
            )
    if kind not in ARCHITECTURES:
        near = closest(kind, ARCHITECTURES) if kind else ""
        raise ValueError(
            f"{config.path}: model_type={kind!r} is not a diffusion language model this package "
            f"knows ({known}){near}; give other modules to dlmdecode.wrap(module, mask_id=…)"
        )
    return ARCHITECTURES[kind]


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
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={str(device)!r} is not there: {fix}") from error
    return found


def usable_devices() -> list[str]:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def pick_dtype(dtype: str | torch.dtype, config: Config) -> torch.dtype | None:
    """The dtype to convert weights to; None keeps them as they are stored."""
    if dtype == "auto":
        field = "torch_dtype" if config.get("torch_dtype") is not None else "dtype"
        stated = config.text(field)
        if stated is None:
            return None
        name = stated.removeprefix("torch.")
        config.require(name in DTYPES, field, f"it must be one of {', '.join(DTYPES)}")
    else:
        name = str(dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"dtype={dtype!r}: give 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def load_tokenizer(folder: Path, family: str | None = None) -> Any:
    """The checkpoint's tokenizer, as its family reads it; None if it has none.

    Raises:
        ValueError: tokenizer files that cannot be read, naming the folder.
    """
    try:
        return ARCHITECTURES.get(family or "", Transformer).load_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare ones
        raise ValueError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
