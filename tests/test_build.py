"""The build where something is missing: nothing is lost silently, no wheel claims too much."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from dlmdecode.ops import extension

ROOT = Path(__file__).parents[1]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "dlmdecode",
    "samplers",
    "evals",
    "csrc",
)


@pytest.fixture
def wheel_without_compiler(tmp_path):
    for name in SOURCES:
        ignore = shutil.ignore_patterns("*.so", "__pycache__", "tiny*")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel"],
        cwd=tmp_path,
        env=os.environ | {"CXX": "false", "CC": "false"},
        capture_output=True,
        check=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    return wheel


def test_a_wheel_without_extension_is_for_every_platform_and_keeps_the_reason(
    wheel_without_compiler,
):
    assert wheel_without_compiler.name.endswith("-py3-none-any.whl")
    with ZipFile(wheel_without_compiler) as wheel:
        reason = wheel.read("dlmdecode/not_built.txt").decode()
        assert not [name for name in wheel.namelist() if name.endswith(".so")]
    assert reason.startswith("the extension was not built: ") and "false" in reason


def test_the_reason_is_said_where_the_extension_is_missing(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("DLMDECODE_REFERENCE", raising=False)
    (tmp_path / "not_built.txt").write_text("the extension was not built: no compiler")
    assert not extension.load(tmp_path / "_C.abi3.so")
    assert "the extension was not built: no compiler" in caplog.text
