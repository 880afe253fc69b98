"""What `sampler="auto"` stands for: the setting that was measured for a model.

`dlmdecode eval frontier` and `eval tune` write one as preset.json. Put beside a model's weights it
is that model's; else the one recorded here for the model's family counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlmdecode.checks import require
from dlmdecode.models.protocol import Denoiser

AUTO = "auto"
FILE = "preset.json"


@dataclass(frozen=True)
class Preset:
    """A sampler with its options, settings among them, and where it comes from."""

    sampler: str
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def __str__(self) -> str:
        pairs = [f"{name}={json.dumps(value)}" for name, value in self.options.items()]
        return ",".join([self.sampler, *pairs])


FAMILIES = {
    "llada": Preset(
        "threshold",
        {"threshold": 0.99},
        "tiny, 500 held-out problems: 85.8 % right, vanilla 85.8 %; 7.5 tokens a forward",
    ),
}


def preset_of(model: Denoiser) -> Preset:
    """The preset beside the model's weights, or that of its family.

    Raises:
        ValueError: there is none, or the file is no preset.
    """
    path = None if model.folder is None else model.folder / FILE
    if path is not None and path.is_file():
        return read(path)
    family = model.family or ""
    known = ", ".join(FAMILIES) or "none"
    fix = (
        f"no preset is recorded for the family {family!r} (there are: {known}), and no {FILE} is "
        "beside the weights: name a sampler, or find one with dlmdecode eval frontier"
    )
    require(family in FAMILIES, "sampler", AUTO, fix)
    return FAMILIES[family]


def read(path: Path) -> Preset:
    """The preset of a file as `dlmdecode eval frontier` writes it."""
    fix = f'{path} is no preset: write {{"sampler": "NAME", "options": {{…}}}}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(fix) from None
    known = isinstance(found, dict) and isinstance(found.get("sampler"), str)
    if not known or not isinstance(found.get("options", {}), dict):
        raise ValueError(fix)
    return Preset(found["sampler"], found.get("options", {}), str(path))
