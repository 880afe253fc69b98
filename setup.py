"""Packages by folder, and one extension: C++ always, CUDA where torch and a toolkit have it.

Environment: `USE_CUDA=0` leaves the CUDA kernels out, `DEBUG=1` builds without optimisation,
`TORCH_CUDA_ARCH_LIST` picks the GPU generations, `DLMDECODE_NO_EXTENSION=1` builds Python only.
"""

from pathlib import Path

from setuptools import setup

FOLDERS = {"dlmdecode": "dlmdecode", "dlmdecode.samplers": "samplers", "dlmdecode.evals": "evals"}
SUBPACKAGES = [
    ".".join(path.parent.parts) for path in Path("dlmdecode").glob("*/__init__.py")
]  # fmt: skip

setup(
    packages=[*FOLDERS, *SUBPACKAGES],
    package_dir=FOLDERS,
    package_data={"dlmdecode": ["py.typed", "models/*/*"]},
)
