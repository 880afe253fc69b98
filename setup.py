"""Packages by folder, and one extension: C++ always, CUDA where torch and a toolkit have it.

Environment: `USE_CUDA=0` leaves the CUDA kernels out, `DEBUG=1` builds without optimisation,
`TORCH_CUDA_ARCH_LIST` picks the GPU generations, `DLMDECODE_NO_EXTENSION=1` builds Python only.
Where the extension does not build, the package installs without it and says so.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

FOLDERS = {"dlmdecode": "dlmdecode", "dlmdecode.samplers": "samplers", "dlmdecode.evals": "evals"}
SUBPACKAGES = [
    ".".join(path.parent.parts) for path in Path("dlmdecode").glob("*/__init__.py")
]  # fmt: skip
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # torch 2.11
# No fused multiply-add but where the code says so: sampled tokens are equal on every machine.
CXX = [
    "-std=c++20",
    "-fvisibility=hidden",
    "-fopenmp-simd",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
]
NVCC = ["-std=c++20", "-Xcompiler=-fvisibility=hidden"]


def extension():
    """The extension and its build command, or nothing where it is not wanted."""
    if os.environ.get("DLMDECODE_NO_EXTENSION") == "1":
        return {}
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension

    class Build(BuildExtension):
        def build_extensions(self):
            try:
                super().build_extensions()
            except Exception as error:
                message = f"dlmdecode: no extension, ops will run in plain torch: {error}"
                print(message, file=sys.stderr)

    wanted = os.environ.get("USE_CUDA", "1") == "1"
    cuda = wanted and torch.version.cuda is not None and CUDA_HOME is not None
    debug = os.environ.get("DEBUG") == "1"
    level = ["-O0", "-g"] if debug else ["-O3", "-g0"]
    sources = ["csrc/ops.cpp", *map(str, sorted(Path("csrc/cpu").glob("*.cpp")))]
    if cuda:
        sources += map(str, sorted(Path("csrc/cuda").glob("*.cu")))
    module = (CUDAExtension if cuda else CppExtension)(
        "dlmdecode._C",
        sources,
        extra_compile_args={
            "cxx": [*CXX, *level, STABLE_ABI, *(["-DUSE_CUDA"] if cuda else [])],
            "nvcc": [*NVCC, "-O0" if debug else "-O3", STABLE_ABI, "-DUSE_CUDA"],
        },
        depends=[str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc")],
        py_limited_api=True,
        optional=True,
    )
    return {"ext_modules": [module], "cmdclass": {"build_ext": Build}}


setup(
    packages=[*FOLDERS, *SUBPACKAGES],
    package_dir=FOLDERS,
    package_data={"dlmdecode": ["py.typed", "models/*/*"]},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    **extension(),
)
