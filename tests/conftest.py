"""Settings of every test: no hub access, one thread, seeded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=("namespaces", "weak"), scope="module")
def isolation(request):
    """Each way to confine a program that works on this machine."""
    from dlmdecode.evals.sandbox import obstacle

    if reason := obstacle(request.param):
        pytest.skip(f"{request.param} on this machine: {reason}")
    return request.param
