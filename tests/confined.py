"""A problem for the sandbox, and short ways to ask it."""

from dlmdecode.evals import sandbox
from dlmdecode.evals.sandbox import ISOLATIONS, obstacle

SQUARE = {
    "prompt": 'def square(x):\n    """Return x times x."""\n',
    "entry_point": "square",
    "test": "def check(f):\n    assert f(3) == 9\n    assert f(-2) == 4\n",
}
RIGHT = "    return x * x\n"


def check(problem, completion, timeout=60.0, isolation="namespaces"):
    """A time-out that a busy machine does not reach."""
    return sandbox.check(problem, completion, timeout, isolation)


def strongest():
    return next(way for way in ISOLATIONS if obstacle(way) is None)


def says(body, isolation):
    """What the program's function returns, by asking whether it equals what it should be."""
    problem = {**SQUARE, "test": "def check(f):\n    raise KeyError(f(0))\n"}
    return check(problem, body, isolation=isolation).reason
