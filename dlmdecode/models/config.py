"""Checkpoints' JSON files as input: every value is checked where it is read, and named if wrong.

A value is never coerced: `"128"`, `128.0` and `true` are no counts. A field of null is absent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LARGEST, LARGEST_VOCABULARY = 2**20, 2**24  # far above what is published, far below overflow


class Config(dict[str, Any]):
    """The fields of a JSON file, and where they stand.

    Raises:
        ValueError: naming the file, the field, its value and what it may be.
    """

    path: Path = Path("config.json")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """`values` itself if it is a `Config`."""
        return values if isinstance(values, Config) else cls(values)

    @classmethod
    def read(cls, path: Path) -> Config:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, too deep, too long
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} is no JSON object but {str(values)[:60]!r}")
        config = cls(values)
        config.path = path
        return config

    @classmethod
    def read_if_there(cls, path: Path) -> Config:
        """An empty one where there is no such file."""
        return cls.read(path) if path.is_file() else cls()

    def but(self, **changes: Any) -> Config:
        """A copy with other values."""
        config = Config(self | changes)
        config.path = self.path
        return config

    def require(self, holds: bool, name: str, fix: str) -> None:
        if not holds:
            shown = repr(self.get(name))
            shown = shown if len(shown) <= 80 else shown[:77] + "…"
            raise ValueError(f"{self.path}: {name}={shown}: {fix}")

    def known(self, name: str, default: T | None) -> Any:
        """The value of a field, or its default; without one the field is required."""
        value = default if self.get(name) is None else self[name]
        if value is None:
            raise ValueError(f"{self.path} lacks the field {name!r}")
        return value

    def count(
        self, name: str, default: int | None = None, most: int = LARGEST, least: int = 1
    ) -> int:
        value = self.known(name, default)
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        self.require(fits, name, f"it must be a whole number from {least} to {most}")
        return value

    def count_or_none(self, name: str) -> int | None:
        return None if self.get(name) is None else self.count(name, most=2**31)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.known(name, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = is_number and 0 < value <= sys.float_info.max
        self.require(fits, name, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.known(name, default)
        self.require(isinstance(value, bool), name, "it must be true or false")
        return value

    def text(self, name: str) -> str | None:
        value = self.get(name)
        self.require(value is None or isinstance(value, str), name, "it must be a text")
        return value

    def heads(self, width: str, heads: str, kv_heads: str) -> tuple[int, int, int]:
        """Query heads, key/value heads and a head's size, of the fields that name these."""
        num, num_kv = self.count(heads), self.count(kv_heads, self.count(heads))
        size, rest = divmod(self.count(width), num)
        self.require(rest == 0, width, f"it must be a multiple of {heads}={num}")
        self.require(size % 2 == 0, width, f"a head's {size} numbers must be even for rotation")
        self.require(num % num_kv == 0, kv_heads, f"it must divide {heads}={num}")
        return num, num_kv, size

    def refuse_unsupported(self, supported: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse a value that the architecture's code would silently get wrong; absent is fine."""
        for name, values in supported.items():
            value = self.get(name)
            same = any(value == one and is_flag(value) == is_flag(one) for one in values)
            listed = f"for {' or '.join(map(repr, values))} only" if values else "without it"
            fix = f"this architecture is implemented {listed}"
            self.require(value is None or same, name, fix)


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)
