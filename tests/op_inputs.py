"""Logits, canvases and lattices that the tests of the ops share, and what every op has to pass."""

import copy
from unittest import mock

import pytest
import torch

from dlmdecode.ops import extension
from dlmdecode.ops.splitmix import key_of

FILLS = ("random", "sharp", "tied", "constant", "extreme", "banned")
MASK = 99

needs_extension = pytest.mark.skipif(not extension.LOADED, reason="the extension is not built")


def logits_like(fill, rows, vocabulary, seed=0):
    z = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    if fill == "sharp":
        z *= 10
    elif fill == "tied":
        z = z.round()
    elif fill == "constant":
        z = torch.full_like(z, -1.3)
    elif fill == "extreme":
        z = z.sign() * 1e4 + z
    elif fill == "banned":
        z[:, 1::2] = -torch.inf
    return z


def canvases(seed, length=14):
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(3, length, generator=generator) < 0.6
    tokens = torch.where(masked, MASK, torch.arange(length))
    proposed = torch.randint(-2, 40, (3, length), generator=generator)
    # coarse: ties are common; some numbers are not there
    confidence = (
        torch.rand(3, length, generator=generator, dtype=torch.float64).mul(10).round() / 10
    )
    confidence[torch.rand(3, length, generator=generator) < 0.05] = torch.nan
    lo = torch.randint(-2, length, (3,), generator=generator)
    hi = lo + torch.randint(0, length + 2, (3,), generator=generator)
    return tokens, proposed, confidence, lo, hi


def random_search(seed, order, lam):
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(0, 8, (40, 12), generator=generator)
    tables = []
    for n in range(1, order + 1):
        windows = texts.unfold(1, n, 1)
        grams, contexts = key_of(windows).unique(), key_of(windows[..., :-1]).unique()
        contexts = contexts if n > 1 else contexts[:0]
        scores = (-torch.rand(len(k), generator=generator) * 5 for k in (grams, contexts))
        tables.append((grams, next(scores), contexts, next(scores)))
    keys, log_probs, contexts, weights = zip(*tables, strict=True)
    return {
        "ids": torch.stack([torch.randperm(10, generator=generator)[:6] for _ in range(7)]),
        "log_prob": torch.randn(7, 6, generator=generator).log_softmax(1),
        "count": torch.randint(1, 7, (7,), generator=generator),
        "keys": list(keys),
        "log_probs": list(log_probs),
        "contexts": list(contexts),
        "weights": list(weights),
        "floor": -9.5,
        "prefix": torch.tensor([5, 1, 2]),
        "beam": 3,
        "lam": lam,
        "eos_ids": torch.tensor([0]),
    }


def reference(op, *arguments, **how):
    """What an op gives in plain torch."""
    with mock.patch.object(extension, "LOADED", False):
        return op(*arguments, **how)


NONSENSE = (
    0.5,
    "x",
    None,
    [1],
    torch.zeros(0),
    torch.zeros(2, 2, 2),
    torch.zeros(3).cfloat(),
    True,
)


def refuses_nonsense(op, names_another=(), **arguments):
    """What does not fit is a ValueError that names the argument, not where C++ found it.

    names_another: arguments of which one may be blamed for another.
    """
    for name, right in arguments.items():
        for value in NONSENSE:
            try:
                op(**copy.deepcopy(arguments) | {name: value})
            except ValueError as error:
                named = names_another if name in names_another else {name.rstrip("s")}
                assert any(one in str(error) for one in named), (op.__name__, name, str(error))
                assert "csrc" not in str(error) and ".cpp" not in str(error)
            else:
                fits = value is None or type(value) is type(right) or isinstance(value, float)
                assert fits or name == "keys", (op.__name__, name, value)
