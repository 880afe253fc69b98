"""`run.json`: all that is needed to repeat a run, and the check that a resumed run is the same."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dlmdecode.evals.plan import BATCHES, Contender
from dlmdecode.evals.results import line_of, write_whole
from dlmdecode.evals.task import Task
from dlmdecode.models.config import Config

COUNTING = (
    "new tokens of a row: those generated before its first EOS; prompt, padding and rejected "
    "drafts are not counted, the forwards spent on them are. NFE of a row: model calls it took "
    "part in. "
    "Tokens per forward: summed new tokens over summed NFE"
)
TIMING = (
    "seconds of a row: wall clock of the steps that it took part in, each divided by the rows in "
    "flight; tokenising, detokenising, loading and grading excluded"
)
PACKAGES = ("dlmdecode", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
HOW = ("dtype", "device", "device_map", "quantize")  # how a model was loaded
# what a resumed run may differ in; of the code the hash counts, so that documents may change
FREE = ("started", "finished", "command", "stages", "environment.commit")
FREE_FROM = tuple(f"{name}." for name in FREE)
DERIVED = ("task.data", "task.subset")  # from how many problems there are


def describe_run(
    task: Task,
    contenders: Sequence[Contender],
    arguments: dict[str, Any],
    batch_size: int,
    model: dict[str, Any],
) -> dict[str, Any]:
    """The record of a run, before it starts."""
    return {
        "task": task.describe(),
        "model": model,
        "samplers": [asdict(contender) for contender in contenders],
        "arguments": arguments,
        "batch_size": batch_size,
        "batching": f"jobs of {BATCHES} batches, longest prompts first; rows of a job come and go",
        "repeats": 1,
        "warm_up": "one untimed call with one prompt for each sampler and process",
        "token_counting": COUNTING,
        "timing": TIMING,
        "environment": environment(),
        "started": now(),
        "command": typed_command(),
    }


def typed_command() -> list[str]:
    """The words of this process's command, of its program the name without the folder."""
    module = Path(sys.argv[0]).name == "__main__.py"  # python -m
    program, *words = sys.orig_argv if module else sys.argv
    return [Path(program).name, *words]


def model_record(folder: Path, name: str, revision: str | None) -> dict[str, Any]:
    """Which checkpoint and tokenizer: hub commit where there is one, and hashes of all files."""
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = sorted({*folder.glob("*token*"), *folder.glob("vocab*"), *folder.glob("merges*")})
    config = Config.read(folder / "config.json")
    snapshot = folder.name if folder.parent.name == "snapshots" else None
    return {
        "name": name,
        "revision": snapshot or revision,
        "family": config.get("model_type"),
        "checkpoint_dtype": config.get("torch_dtype", config.get("dtype")),
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
        "code_sha256": hash_files(modules()),
        "versions": {name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def modules() -> list[Path]:
    """The package's Python files, and its extension if it was built."""
    import dlmdecode.samplers

    own = str(Path(__file__).parent)
    homes = [*dlmdecode.__path__, *dlmdecode.samplers.__path__, own]
    found = (path for home in homes for path in Path(home).rglob("*"))
    return sorted({path.resolve() for path in found if path.suffix in (".py", ".so", ".pyd")})


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


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys and places in lists, joined by dots."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    leaves: dict[str, Any] = {}
    for key, value in items:
        if isinstance(value, (Mapping, list)) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two records say differently, `FREE` keys aside: "key: value there, value now"."""
    before, after = (flat(record) for record in (old, json.loads(json.dumps(new))))
    keys = (k for k in before.keys() | after.keys() if not f"{k}.".startswith(FREE_FROM))
    changed = sorted(k for k in keys if before.get(k) != after.get(k))
    if "task.problems" in changed:
        changed = [key for key in changed if key not in DERIVED]
    return [f"{k}: {brief(before.get(k))} there, {brief(after.get(k))} now" for k in changed]


def open_record(
    path: Path, record: dict[str, Any], shorter: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """Write the record of a new run, or check that an existing run has the same one.

    A run with the first problems only is extended: `stages` has how many there were each time.

    Args:
        shorter: describes the first problems of the task, given their number.

    Raises:
        ValueError: the folder holds a run with other settings, which it names.
    """
    total = record["task"]["problems"]
    if not path.exists():
        record = {**record, "stages": [total]}
        write_record(path, record)
        return record
    old = read_record(path)
    done = old["task"]["problems"]
    same = {**record, "task": shorter(done)} if done < total else record
    if changed := differences(old, same):
        raise ValueError(
            f"{path.parent} holds a run with other settings ({'; '.join(changed[:8])}); "
            "give another --output"
        )
    if done < total:
        old = {**old, "task": record["task"], "stages": [*old["stages"], total]}
        old.pop("finished", None)
        write_record(path, old)
    return old


def read_record(path: Path) -> dict[str, Any]:
    """Raises `ValueError` where the file is no record of a run; names it."""
    try:
        record = json.loads(path.read_bytes())
        total = record["task"]["problems"]
        record.setdefault("stages", [total])
        whole = record["stages"][-1] == total >= 1 and record["batch_size"] >= 1
        labels = [sampler["label"] for sampler in record["samplers"]]
        texts = [*labels, record["environment"]["processor"]]
        whole = whole and labels and all(isinstance(text, str) for text in texts)
        whole = whole and isinstance(record["model"], dict) and "arguments" in record
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: no record of a run; restore it, or start a new run")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    write_whole(path, line_of(record, indent=2))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
