"""What `dlmdecode models` prints: the families as a table, and the tensors of a configuration."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from dlmdecode.checks import closest
from dlmdecode.models.config import Config
from dlmdecode.models.families import FAMILIES, Family, family_of, list_families
from dlmdecode.models.published import PUBLISHED
from dlmdecode.models.transformer import Transformer
from dlmdecode.tables import Table, show_table

COLUMNS = ("model_type", "checkpoints", "attention", "block", "mask", "shift", "verified against")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="one JSON object a family")
    what.add_argument("--markdown", action="store_true", help="the table of the README")
    what.add_argument(
        "--tensors",
        metavar="CONFIG",
        help="names and shapes that a config.json, or a published size such as SDAR-8B, implies",
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.tensors is not None:
        print(tensors(arguments.tensors))
    elif arguments.markdown:
        print(markdown())
    elif arguments.json:
        print("\n".join(map(json.dumps, records())))
    else:
        show_table(listing())


def record(family: Family) -> dict[str, Any]:
    """What is known of a family without a checkpoint."""
    kind = family.kind
    field, published = kind.block_field, kind.published_block
    own = f"{field}, else {published}" if published else field
    return {
        "model_type": ", ".join(family.names) + (f" with {field}" if family.when else ""),
        "checkpoints": family.checkpoints,
        "attention": "full" if field is None else "causal between blocks",
        "block": own or "",
        "mask": str(kind.mask_id) if kind.mask_id >= 0 else "",
        "shift": kind.shift,
        "verified against": family.verified,
    }


def records() -> list[dict[str, Any]]:
    list_families()  # those of installed packages, too
    return [record(family) for family in FAMILIES]


def listing() -> Table:
    """The families, a row each. A mask that is not shown comes from the checkpoint's files."""
    return Table(COLUMNS, [tuple(map(str, one.values())) for one in records()])


def markdown() -> str:
    """The table of the README."""
    rows = [(f"`{name}`", *others) for name, *others in listing().rows]
    return Table(COLUMNS, rows).markdown()


def tensors(name: str) -> str:
    """Names and shapes of all tensors that a configuration implies, and how many numbers they are.

    Args:
        name: a published size, a config.json, or a checkpoint's folder.

    Raises:
        ValueError: it is none of these, or a configuration of no family.
    """
    shapes = {key: tuple(value.shape) for key, value in outline(configuration(name)).items()}
    width = max(map(len, shapes))
    lines = [f"{key:<{width}}  {' × '.join(map(str, shape))}" for key, shape in shapes.items()]
    total = sum(map(math.prod, shapes.values()))
    return "\n".join([*lines, f"{len(shapes)} tensors, {total:,} numbers"])


def configuration(name: str) -> Config:
    if name in PUBLISHED:
        return Config(PUBLISHED[name])
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        known = ", ".join(PUBLISHED)
        near = closest(name, PUBLISHED)
        raise ValueError(f"no configuration {name!r}{near}: give a config.json, or one of {known}")
    return Config.read(path)


def outline(config: Config) -> dict[str, torch.Tensor]:
    """The tensors of a configuration on the meta device, which have shapes and no values."""
    with torch.device("meta"):
        model: Transformer = family_of(config)(config)
    return model.state_dict()
