"""Packages by folder, and one extension: C++ always, CUDA where torch and a toolkit have it.

Environment: `USE_CUDA=0` leaves the CUDA kernels out, `DEBUG=1` builds without optimisation,
`TORCH_CUDA_ARCH_LIST` picks the GPU generations (those visible, else `GPUS`),
`DLMDECODE_NO_EXTENSION=1` builds Python only. Where CUDA does not build, the extension is built
without it; where C++ does not, the package installs without the extension. Either is said, and kept
in `dlmdecode/not_built.txt` for the run time to say.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

FOLDERS = {
    "dlmdecode": "dlmdecode",
    "dlmdecode.samplers": "samplers",
    "dlmdecode.evals": "evals",
    "dlmdecode.evals.stories": "evals/stories",
}
SUBPACKAGES = [
    ".".join(path.parent.parts) for path in Path("dlmdecode").glob("*/**/__init__.py")
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
GPUS = "8.0;9.0+PTX"  # where no GPU is visible (a login node, an image); newer ones compile the PTX


def extension():
    """The extension and its build command, or nothing where it is not wanted."""
    if os.environ.get("DLMDECODE_NO_EXTENSION") == "1":
        return {}
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension

    def module(cuda):
        debug = os.environ.get("DEBUG") == "1"
        level = ["-O0", "-g"] if debug else ["-O3", "-g0"]
        sources = ["csrc/ops.cpp", *map(str, sorted(Path("csrc/cpu").rglob("*.cpp")))]
        if cuda:
            sources += map(str, sorted(Path("csrc/cuda").glob("*.cu")))
        headers = [str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc")]
        return (CUDAExtension if cuda else CppExtension)(
            "dlmdecode._C",
            sources,
            extra_compile_args={
                "cxx": [*CXX, *level, STABLE_ABI, *(["-DUSE_CUDA"] if cuda else [])],
                "nvcc": [*NVCC, "-O0" if debug else "-O3", STABLE_ABI, "-DUSE_CUDA"],
            },
            depends=headers,
            py_limited_api=True,
        )

    class Build(BuildExtension):
        """Builds what can be built and keeps the reason for the rest."""

        def run(self):
            self.reason = ""
            super().run()
            package = Path("" if self.inplace else self.build_lib, "dlmdecode")
            note = package / "not_built.txt"
            note.unlink(missing_ok=True)
            if self.reason:
                note.write_text(self.reason, encoding="utf-8")

        def build_extensions(self):
            try:
                super().build_extensions()
            except Exception as error:
                if any(source.endswith(".cu") for source in self.extensions[0].sources):
                    self.lost("the CUDA kernels were", error)
                    vars(self.extensions[0]).update(vars(module(cuda=False)))
                    self.build_extensions()
                else:
                    self.lost("the extension was", error)
                    # so that nothing is copied, and no wheel claims a platform
                    self.extensions = self.distribution.ext_modules = []
                    self.get_finalized_command("bdist_wheel").root_is_pure = True

        def lost(self, what, error):
            message = str(error).strip() or type(error).__name__
            self.reason = f"{what} not built: {message[-400:]}"  # a compiler's command is long
            print(f"dlmdecode: {self.reason}", file=sys.stderr)

    wanted = os.environ.get("USE_CUDA", "1") == "1"
    cuda = wanted and torch.version.cuda is not None and CUDA_HOME is not None
    if cuda and not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", GPUS)
    return {"ext_modules": [module(cuda)], "cmdclass": {"build_ext": Build}}


setup(
    packages=[*FOLDERS, *SUBPACKAGES],
    package_dir=FOLDERS,
    package_data={
        "dlmdecode": ["py.typed", "models/*/*", "serve/page.*", "trace/assets/*"],
        "dlmdecode.evals.stories": ["*.txt"],
    },
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    **extension(),
)
