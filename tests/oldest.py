"""Print the oldest release of each dependency that pyproject.toml allows, as pip's requirements.

pip install $(python tests/oldest.py)
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def oldest(line: str) -> str:
    """`name==X` for a requirement with one bound `>=X`."""
    wanted = Requirement(line)
    (bound,) = (one.version for one in wanted.specifier if one.operator == ">=")
    return f"{wanted.name}=={bound}"


if __name__ == "__main__":
    print(*map(oldest, PROJECT["dependencies"]), sep="\n")
