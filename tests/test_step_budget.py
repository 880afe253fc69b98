"""What a step may cost outside the model: operations, and waits for the device. No times."""

from unittest import mock

import pytest
import torch
from op_inputs import needs_extension
from torch.utils._python_dispatch import TorchDispatchMode
from toy import prompts

import dlmdecode

NEVER = {
    "threshold": {"threshold": 1.0},
    "credit": {"threshold": 1.0},
    "adablock": {"threshold": 1.0},
}
NEVER["prophet"] = {"early": 99.0, "mid": 99.0, "late": 99.0}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "item", "_unique2"}
PLAIN = ("threshold", "vanilla", "credit", "adablock", "prophet")
CACHES = {"none": 60, "prefix": 80, "dual": 80}
BUDGETS = [(name, cache, 50) for name in PLAIN[:-1] for cache in CACHES]
BUDGETS += [("prophet", cache, budget) for cache, budget in CACHES.items()]
BUDGETS += [(name, "none", 100) for name in ("hierarchy", "klass")]
BUDGETS += [("wino", "none", 120), ("freedave", "none", 200)]  # few steps, an end among them


class Outside(TorchDispatchMode):
    """Counts operations while no method of the model runs."""

    def __init__(self, model):
        super().__init__()
        self.inside = self.operations = self.waits = 0
        for name in ("encode", "head"):
            setattr(model, name, self.entering(getattr(model, name)))

    def entering(self, method):
        def call(*arguments, **how):
            self.inside += 1
            try:
                return method(*arguments, **how)
            finally:
                self.inside -= 1

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.inside:
            self.operations += 1
            self.waits += func.__name__.split(".")[0] in WAITS
        return func(*args, **(kwargs or {}))


@needs_extension
@pytest.mark.parametrize("name, cache, budget", BUDGETS)
def test_a_step_stays_within_its_budget(name, cache, budget):
    model = dlmdecode.load("tiny")
    options = {"max_new_tokens": 64, "cache": cache, "eos": "ignore", **NEVER.get(name, {})}
    steps = iter(dlmdecode.stream(model, prompts(20, 20), name, **options))
    next(steps)
    real, reads = torch.Tensor.tolist, []
    with (
        Outside(model) as count,
        mock.patch.object(torch.Tensor, "tolist", lambda self: reads.append(1) or real(self)),
    ):
        number = sum(1 for _ in zip(range(12), steps, strict=False))
    assert count.operations <= budget * number
    if name in PLAIN:
        assert count.waits + len(reads) <= (1 if cache == "none" else 2) * number
