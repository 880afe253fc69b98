"""The walk of CONTRIBUTING's "A new op", for one that lives outside the package."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from op_inputs import logits_like, needs_extension, reference, refuses_nonsense
from torch.library import opcheck
from torch.utils import cpp_extension

HERE = Path(__file__).parent
pytestmark = [
    needs_extension,
    pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler"),
]


@pytest.fixture(scope="session")  # a process can register the op once
def above(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # ninja stands beside the interpreter
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        cpp_extension.load(
            "above",
            [str(HERE / "new_op" / "above.cpp")],
            extra_cflags=["-std=c++20", "-DTORCH_TARGET_VERSION=0x020b000000000000"],
            extra_include_paths=[str(HERE.parent / "csrc")],
            build_directory=str(tmp_path_factory.mktemp("above")),
            is_python_module=False,
        )
    from new_op.above import above

    return above


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_it_equals_its_reference(above, dtype):
    z = logits_like("random", 4, 301).to(dtype)
    assert torch.equal(above(z, 0.5), reference(above, z, 0.5))
    assert torch.equal(above(z[:, ::3], 0.5), reference(above, z[:, ::3], 0.5))


def test_opcheck_accepts_it(above):
    opcheck(torch.ops.dlmdecode.above, (logits_like("random", 3, 50), 0.5))


def test_arguments_that_do_not_fit_are_named(above):
    refuses_nonsense(above, logits=torch.randn(3, 8), level=0.5)
