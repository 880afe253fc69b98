"""What the fused ops cost, side by side with what they replace, in one run.

    python benchmarks/ops.py [--device cuda] [--rows 32] [--vocabulary 126464] [--slots 32]
        [--threads 1] [--budget 1.0] [--json FILE]

Every number is the fastest of repeated calls, on inputs that rotate through more memory than caches
hold; bursts of the calls of a line take turns. "fraction" is the bytes an op has to read over its
time, over the read bandwidth of the same line (that of a sum over the float32 rows). Ratios:

    (a) eager PyTorch doing the same to the same rows: for `propose`, softmax in float32, max, top-2
    (b) torch.compile of that softmax, max and top-2 in float32
    (c) float64 softmax over a canvas of 256 positions, as the published codes do it

The last line takes all 256 rows of a canvas, and there (a) and (b) do so too. Above 32 MB malloc
asks the system for each buffer anew, as it does in a decoding step, and eager pays for page faults.
Other work on the machine makes all numbers worse and ratios unsteady: run it alone.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dlmdecode import ops

CANVAS = 256
ROUNDS = 5


def seconds(
    calls: Sequence[Callable[[Tensor], object]], inputs: Sequence[Tensor], budget: float
) -> list[float]:
    """Fastest time of each call: bursts of one after bursts of another, so that all meet the same
    machine and none the dirty caches of another.

    On a GPU of graph replays, so that launch gaps stay small.
    """
    if inputs[0].is_cuda:
        return [cuda_seconds(call, inputs) for call in calls]
    source = cycle(inputs)
    fastest = [math.inf for _ in calls]
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            call(next(source))
            until = time.perf_counter() + budget / ROUNDS
            while (start := time.perf_counter()) < until:
                call(next(source))
                fastest[i] = min(fastest[i], time.perf_counter() - start)
    return fastest


def cuda_seconds(call: Callable[[Tensor], object], inputs: Sequence[Tensor]) -> float:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for z in inputs:
            call(z)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for z in inputs:
            call(z)
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(inputs))
    return min(times)


def eager(z: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    p = z.to(dtype).softmax(-1)
    top = p.topk(2, -1).values
    best = p.max(-1)
    return best.values, best.indices, top[:, 0] - top[:, 1]


def eager_sampled(z: Tensor) -> tuple[Tensor, ...]:
    noise = -torch.rand_like(z).log_().neg_().log_()
    return (z + noise).argmax(-1), *eager(z)


def eager_credit(z: Tensor, trace: Tensor, alpha: float, beta: float, gamma: float) -> object:
    best = z.softmax(-1).max(-1)
    trace.mul_(beta).scatter_add_(-1, best.indices[:, None], best.values[:, None] ** gamma)
    return eager(z + alpha * trace.log1p())


def whole_canvas(z: Tensor) -> tuple[Tensor, Tensor]:
    p = z.double().softmax(-1)
    token = z.argmax(-1)
    return token, p.gather(-1, token[:, None])


class Case(NamedTuple):
    call: Callable[[Tensor], object]
    eager: Callable[[Tensor], object]
    dtype: torch.dtype = torch.float32


def cases(z: Tensor, slots: int) -> dict[str, Case]:
    ids = torch.randint(0, z.shape[1], (len(z), slots), device=z.device)
    credits = torch.rand(len(z), slots, device=z.device)
    trace = torch.zeros_like(z).scatter_(-1, ids, credits)
    mask = z.shape[1] - 1
    credit = {"alpha": 0.65, "beta": 0.7, "gamma": 0.2}

    def propose(z: Tensor) -> object:
        return ops.propose(z, exclude=mask)

    return {
        "propose float32": Case(propose, eager),
        "propose bfloat16": Case(propose, eager, torch.bfloat16),
        "propose float16": Case(propose, eager, torch.float16),
        "propose float64 sums": Case(
            lambda z: ops.propose(z, dtype=torch.float64), lambda z: eager(z, torch.float64)
        ),
        "propose temperature 1": Case(lambda z: ops.propose(z, temperature=1.0), eager_sampled),
        f"credit {slots} slots": Case(
            lambda z: ops.credit(z, ids, credits, exclude=mask, **credit),
            lambda z: eager_credit(z, trace, **credit),
        ),
        "topm 15": Case(lambda z: ops.topm(z, 15), lambda z: z.log_softmax(-1).topk(15, -1)),
    }


def commit_seconds(device: str) -> float:
    tokens = torch.full((32, CANVAS), 9, device=device)
    proposed = torch.randint(0, 9, (32, CANVAS), device=device)
    confidence = torch.rand(32, CANVAS, device=device, dtype=torch.float64)
    bounds = [torch.full((32,), n, device=device) for n in (64, 96)]

    def call(confidence: Tensor) -> object:
        return ops.commit(tokens, proposed, confidence, *bounds, 9, "threshold", threshold=1.1)

    return seconds([call], [confidence], 0.5)[0]


def random_logits(rows: int, vocabulary: int, dtype: torch.dtype, device: str) -> Tensor:
    return (torch.randn(rows, vocabulary, device=device) * 3).to(dtype)


def extra_memory(z: Tensor) -> int:
    """Most bytes torch held beyond its inputs during a step."""
    if z.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ops.propose(z)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        ops.propose(z)
    return sum(max(event.cpu_memory_usage, 0) for event in profile.events())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=126464)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each number")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    return parser.parse_args()


def machine(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    with open("/proc/cpuinfo") as lines:
        name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    name = name or platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows, vocabulary, device = args.rows, args.vocabulary, args.device
    size = rows * vocabulary * 4
    copies = max(2, -(-200_000_000 // size))
    full = [random_logits(rows, vocabulary, torch.float32, device) for _ in range(copies)]
    canvas = [random_logits(CANVAS, vocabulary, torch.float32, device) for _ in range(2)]
    reads = cycle(full)
    compiled = torch.compile(eager, dynamic=False)
    (published,) = seconds([whole_canvas], canvas, args.budget)
    print(f"{machine(device)}; extension {ops.is_available(device)}")
    print(f"{rows} x {vocabulary}; (c) float64 softmax, {CANVAS} rows: {published * 1e3:.1f} ms")
    columns = ("ms", "MB", "fraction", "(a) ms", "(b) ms", "x (a)", "x (b)", "x (c)")
    print(f"{'op':24}" + "".join(f"{name:>9}" for name in columns))
    results = {}

    def line(name: str, case: Case, inputs: list[Tensor], like: list[Tensor]) -> None:
        same = cycle(like)
        calls = [case.call, case.eager, lambda z: compiled(next(same)), lambda z: next(reads).sum()]
        taken, replaced, fused, read = seconds(calls, inputs, args.budget)
        moved = inputs[0].numel() * case.dtype.itemsize
        bandwidth = size / read
        results[name] = {
            "seconds": taken,
            "eager_seconds": replaced,
            "compiled_seconds": fused,
            "bytes": moved,
            "read_bandwidth": bandwidth,
            "fraction": moved / taken / bandwidth,
            "a": replaced / taken,
            "b": fused / taken,
            "c": published / taken,
        }
        print(
            f"{name:24}{taken * 1e3:9.3f}{moved / 1e6:9.1f}{moved / taken / bandwidth:9.2f}"
            + f"{replaced * 1e3:9.2f}{fused * 1e3:9.2f}"
            + f"{replaced / taken:9.1f}{fused / taken:9.1f}{published / taken:9.1f}"
        )

    listed = cases(full[0], args.slots)
    for name, case in listed.items():
        inputs = full if case.dtype == torch.float32 else [z.to(case.dtype) for z in full]
        line(name, case, inputs, full)
    line(f"propose, {CANVAS} rows", listed["propose float32"], canvas, canvas)
    best = max(result["read_bandwidth"] for result in results.values())
    committed, extra = commit_seconds(device), extra_memory(full[0])
    print(f"reads {best / 1e9:.1f} GB/s at best")
    print(f"commit, 32 blocks of 32: {committed * 1e6:.1f} us; propose holds {extra} bytes more")
    if args.json:
        about = {"machine": machine(device), "rows": rows, "vocabulary": vocabulary}
        about |= {"published_seconds": published, "commit_seconds": committed}
        args.json.write_text(json.dumps(about | {"extra_bytes": extra, "ops": results}, indent=1))


if __name__ == "__main__":
    main()
