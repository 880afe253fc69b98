"""From a name or a folder to a model: configuration, safetensors, tokenizer. Never remote code.

model = load("tiny")                          # the embedded default
model = load("GSAI-ML/LLaDA-8B-Instruct")     # a hub id
model = load("checkpoints/my-dream")          # a local folder in Hugging Face layout
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlmdecode.models.base import Transformer
from dlmdecode.models.dream import Dream
from dlmdecode.models.llada import LLaDA

ARCHITECTURES: dict[str, type[Transformer]] = {"llada": LLaDA, "Dream": Dream}
EMBEDDED = {name: Path(__file__).parent / name for name in ("tiny", "tiny-dream")}
END_OF_TURN = ("<|eot_id|>", "<|im_end|>")
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
            (one file, or shards with `model.safetensors.index.json`).
        device: where to put the weights; None takes the GPU if there is one.
        dtype: "auto" keeps the dtype named in config.json (or else of the weights); a name such as
            "bfloat16", or a `torch.dtype`.
        revision: branch, tag or commit of a hub id.

    Returns:
        A `Transformer` in eval mode with `.tokenizer` (None if the folder has none), `.mask_id`,
        `.eos_ids`.

    Raises:
        FileNotFoundError: no such folder or hub id, or no `config.json` or safetensors in it.
        ValueError: unknown architecture or dtype, missing or unexpected tensors, pickled weights.
    """
    folder = find_folder(name_or_path, revision)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"{folder}: model_type={kind!r} is not a diffusion language model this package knows "
            f"({', '.join(ARCHITECTURES)}); give other modules to dlmdecode.wrap(module, mask_id=…)"
        )
    files = weight_files(folder)
    try:
        with torch.device("meta"):
            model = ARCHITECTURES[kind](config)
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} lacks the field {error}") from error
    fill(model, files, pick_device(device), pick_dtype(dtype, config))
    model.folder = folder
    model.tokenizer = load_tokenizer(folder, kind)
    model.mask_id, model.eos_ids = special_ids(folder, config, model.tokenizer)
    return model.eval()


def find_folder(name_or_path: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (weights and JSON only)."""
    name = os.fspath(name_or_path)
    folder = EMBEDDED.get(name, Path(name))
    if folder.is_dir():
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


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the shards its index names, or the single file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    else:
        files = sorted(folder.glob("model*.safetensors"))[:1]
    lost = [file.name for file in files if not file.is_file()]
    if lost:
        raise FileNotFoundError(f"{folder}: the index names {', '.join(lost)}, which is not there")
    if not files:
        pickled = [p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern)]
        if pickled:
            raise ValueError(
                f"{folder} has pickled weights only ({', '.join(sorted(pickled)[:3])}); loading a "
                "pickle can run code, so convert them to safetensors first"
            )
        raise FileNotFoundError(f"{folder} holds no model.safetensors")
    return files


def tensors(files: list[Path], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        try:
            with safe_open(file, framework="pt", device=str(device)) as opened:
                for name in opened.keys():
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error


def fill(
    model: Transformer, files: list[Path], device: torch.device, dtype: torch.dtype | None
) -> None:
    """Put the tensors of `files` into a model made on the meta device; every name must match."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for name, value in tensors(files, device):
        if name not in expected:
            raise ValueError(f"{files[0].parent}: unexpected tensor {name!r} for this architecture")
        if tuple(value.shape) != expected[name]:
            raise ValueError(
                f"{files[0].parent}: tensor {name!r} has shape {tuple(value.shape)}, but "
                f"config.json implies {expected[name]}"
            )
        state[name] = value.to(dtype) if dtype and value.is_floating_point() else value
    missing = [name for name in expected if name not in state]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{files[0].parent}: missing tensors {', '.join(missing[:3])}{more}")
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False)


def pick_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no torch device: {error}") from error


def pick_dtype(dtype: str | torch.dtype, config: dict[str, Any]) -> torch.dtype | None:
    """The dtype to convert floating-point weights to; None keeps them as they are stored."""
    if isinstance(dtype, torch.dtype):
        return dtype
    name = config.get("torch_dtype") or config.get("dtype") if dtype == "auto" else dtype
    if name is None:
        return None
    found = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={name!r} is not a floating-point dtype of torch")
    return found


def load_tokenizer(folder: Path, kind: str | None = None) -> Any:
    """The checkpoint's tokenizer through stock transformers classes; None if it has none.

    Dream's hub tokenizer is custom Python over Qwen2's vocabulary and merges: the stock Qwen2
    tokenizer reads the same files, and its added tokens come from tokenizer_config.json.
    """
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    if kind == "Dream" and (folder / "vocab.json").is_file():
        tokenizer = Qwen2Tokenizer.from_pretrained(folder)
        check_added_tokens(folder, tokenizer)
        return tokenizer
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    return None


def check_added_tokens(folder: Path, tokenizer: Any) -> None:
    """Added tokens are numbered on from the vocabulary, whatever ids their file gives them."""
    path = folder / "tokenizer_config.json"
    stated = read_json(path).get("added_tokens_decoder", {}) if path.is_file() else {}
    for id, token in stated.items():
        found = tokenizer.convert_tokens_to_ids(token["content"])
        if found != int(id):
            raise ValueError(
                f"{path} gives {token['content']!r} the id {id}, but vocab.json leaves it {found}"
            )


def special_ids(
    folder: Path, config: dict[str, Any], tokenizer: Any
) -> tuple[int, tuple[int, ...]]:
    """Mask id and end-of-sequence ids of the checkpoint: configurations, then tokenizer."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    candidates = [config.get("mask_token_id"), generation.get("mask_token_id")]
    candidates.append(getattr(tokenizer, "mask_token_id", None))
    mask_id = next((value for value in candidates if value is not None), None)
    if mask_id is None:
        raise ValueError(f"{folder}: neither config.json nor the tokenizer names a mask token")
    eos: list[int] = []
    for source in (config, generation):
        value = source.get("eos_token_id")
        eos += value if isinstance(value, list) else [value] if value is not None else []
    if tokenizer is not None:
        eos += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        vocabulary = tokenizer.get_added_vocab()
        eos += [vocabulary[token] for token in END_OF_TURN if token in vocabulary]
    if not eos:
        raise ValueError(f"{folder}: neither config.json nor the tokenizer names an eos token")
    return int(mask_id), tuple(dict.fromkeys(int(value) for value in eos))
