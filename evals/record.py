"""`run.json`: everything needed to repeat a run, and the check that a resumed run is the same one."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dlmdecode.evals.results import write_whole

COUNTING = (
    "new tokens of a row: those generated before its first EOS; prompt, padding and rejected drafts "
    "are not counted, the forwards spent on them are. NFE of a row: model calls it took part in. "
    "Tokens per forward: summed new tokens over summed NFE"
)
TIMING = (
    "seconds of a row: wall clock of generate() for its batch, tokenising and detokenising "
    "included, loading and grading excluded, divided by the rows of the batch"
)
PACKAGES = ("dlmdecode", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
FREE = ("started", "finished", "command", "sessions")  # what a resumed run may differ in


def model_record(folder: Path, name: str, revision: str | None) -> dict[str, Any]:
    """Which checkpoint and tokenizer: hub commit where there is one, and hashes of all files."""
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = sorted({*folder.glob("*token*"), *folder.glob("vocab*"), *folder.glob("merges*")})
    config = json.loads((folder / "config.json").read_text())
    snapshot = folder.name if folder.parent.name == "snapshots" else None
    return {
        "name": name,
        "revision": snapshot or revision,
        "family": config.get("model_type"),
        "config_sha256": hash_files([folder / "config.json"]),
        "weights_sha256": hash_files(weights),
        "tokenizer_sha256": hash_files(tokenizer),
    }


def hash_files(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(2**24):
                total.update(chunk)
    return total.hexdigest()


def environment() -> dict[str, Any]:
    """Versions, commit and machine."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "commit": commit(),
        "versions": {name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that this file belongs to, "+changes" where files differ."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True
        )
        if tracked.returncode:
            return None
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changes = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except OSError:
        return None
    return head.stdout.strip() + ("+changes" if changes.returncode else "")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys under which two records say different things, those of `FREE` aside."""
    before, after = (
        flat({key: value for key, value in record.items() if key not in FREE})
        for record in (old, json.loads(json.dumps(new)))
    )
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))


def open_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record of a new run, or check that an existing run has the same one.

    Raises:
        ValueError: the folder holds a run with other settings; names them.
    """
    if not path.exists():
        write_record(path, record)
        return record
    old = json.loads(path.read_text())
    changed = differences(old, record)
    if changed:
        before, after = flat(old), flat(json.loads(json.dumps(record)))
        shown = "; ".join(
            f"{key}: {brief(before.get(key))} there, {brief(after.get(key))} now"
            for key in changed[:8]
        )
        raise ValueError(
            f"{path.parent} holds a run with other settings ({shown}); give another --output"
        )
    return old


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")


def brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
