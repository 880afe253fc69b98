"""What the benchmarks measure with: a model of any size, time and operations outside of it."""

from __future__ import annotations

import datetime
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlmdecode.models.llada import LLaDA

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "item", "_unique2"}


def synthetic(vocabulary: int, width: int, layers: int = 4, gain: float = 1.0) -> LLaDA:
    """LLaDA's network with random weights in float32; `gain` makes its logits sharper."""
    torch.manual_seed(0)
    config = {
        "model_type": "llada",
        "vocab_size": vocabulary,
        "d_model": width,
        "n_heads": max(width // 64, 1),
        "n_layers": layers,
        "mlp_hidden_size": 3 * width,
        "weight_tying": False,
        "rope_theta": 1e4,
    }
    model = LLaDA(config).eval().requires_grad_(False)
    model.parts["ff_out"].weight.mul_(gain)
    model.mask_id, model.eos_ids = vocabulary - 1, (vocabulary - 2,)
    return model


def prompts(num: int, length: int, vocabulary: int) -> list[Tensor]:
    """Random ids, the same ones at every call; special tokens are the last of a vocabulary."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(2, vocabulary - 24, (length,), generator=generator) for _ in range(num)]


class Inside:
    """Inside this context `encode` and `head` of a model are watched.

    `seconds` is the CPU time of this thread in them, `began` what it was when the first one began.
    """

    def __init__(self, model: Any, enter: Callable[[], None] = lambda: None):
        self.model, self.enter = model, enter
        self.seconds, self.depth = 0.0, 0
        self.began: float | None = None

    def __enter__(self) -> Inside:
        for name in ("encode", "head"):
            setattr(self.model, name, self.watched(getattr(self.model, name)))
        return self

    def __exit__(self, *_: Any) -> None:
        del self.model.encode, self.model.head

    def watched(self, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any, **how: Any) -> Tensor:
            self.enter()
            self.depth += 1
            began = time.thread_time()
            self.began = began if self.began is None else self.began
            try:
                return method(*arguments, **how)
            finally:
                self.seconds += time.thread_time() - began
                self.depth -= 1

        return call


class Outside(TorchDispatchMode):
    """Counts operations, and those that wait for the device, while no method of a model runs."""

    def __init__(self, inside: Inside):
        super().__init__()
        self.inside = inside
        self.operations = self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.inside.depth:
            self.operations += 1
            self.waits += func.__name__.split(".")[0] in WAITS
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(model: Any) -> Iterator[Outside]:
    """Operations and waits outside the model; a tensor that is read as a list is a wait."""
    real = Tensor.tolist
    with Inside(model) as inside, Outside(inside) as count:

        def read(tensor: Tensor) -> Any:
            count.waits += not inside.depth
            return real(tensor)

        with mock.patch.object(Tensor, "tolist", read):
            yield count


def timed(owner: Any, name: str, tell: Callable[[float], None]) -> None:
    """From now on `tell` gets the CPU time of each call of a function of a class or a module."""
    inner = getattr(owner, name)

    def run(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return inner(*arguments, **options)
        finally:
            tell(time.process_time() - began)

    setattr(owner, name, run)


class Reached(Exception):
    """The first forward is about to begin."""


def before_first_forward(model: Any, call: Callable[[], Any]) -> float:
    """Seconds of this thread until `call` reaches the model, the least of forty times."""

    def stop() -> None:
        raise Reached

    times = []
    for _ in range(40):
        began = time.thread_time()
        try:
            with Inside(model, stop):
                call()
        except Reached:
            times.append(time.thread_time() - began)
    return min(times)


def own_bytes(line: str = "VmRSS") -> int:
    """Memory that the process holds now (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    (found,) = (row.split()[1] for row in status if row.startswith(f"{line}:"))
    return int(found) * 1024


def reset_peak() -> None:
    """`peak_bytes` counts from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that the process has held (Linux)."""
    return own_bytes("VmHWM")


def about() -> dict[str, Any]:
    """The machine, for a record."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "processor": names[0] if names else platform.machine(),
        "threads": torch.get_num_threads(),
    }


class Table:
    """Lines of a table, printed and written to a page of Markdown as they come; None: printed only.

    A page that is there is gone on with: `done` says which lines it has, by their first cells.
    """

    def __init__(self, path: Path | None, title: str, head: tuple[str, ...]):
        self.path, self.title, self.head = path, title, head
        self.lines: list[list[str]] = []
        if path is not None and path.exists():
            lines = path.read_text().splitlines()
            rows = [line for line in lines if line.startswith("| ")]
            kept = [line for line in lines if line and not line.startswith("|")]
            new = [line for line in title.splitlines() if line and line not in kept]
            self.title = "\n\n".join([*kept, *new])
            self.lines = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]
        print(" ".join(f"{name:>14}" for name in head), flush=True)

    def done(self, *first: Any) -> bool:
        """Whether there is a line that begins with these cells."""
        wanted = [str(cell) for cell in first]
        return any(line[: len(wanted)] == wanted for line in self.lines)

    def add(self, *cells: Any) -> None:
        self.lines.append([str(cell) for cell in cells])
        print(" ".join(f"{cell:>14}" for cell in self.lines[-1]), flush=True)
        if self.path is not None:
            rule = ["---"] * len(self.head)
            table = ["| " + " | ".join(line) + " |" for line in ([*self.head], rule, *self.lines)]
            table[1] = table[1].replace(" ", "")
            self.path.write_text("\n".join([self.title, "", *table]) + "\n")


def command() -> str:
    """The command line, the machine and the day, for a page of results."""
    machine = ", ".join(f"{name} {value}" for name, value in about().items())
    words = " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    return f"`{words}` ({machine}; {datetime.date.today()})"
