"""Many requests to a server of this process: all answered as by `generate`, and its memory.

    OMP_NUM_THREADS=1 python benchmarks/serve.py --requests 2000

Prompts are problems of the held-out split, each asked many times over, `--clients` at a time. Every
tenth client leaves in the middle of its stream. Memory is that of the process, clients included.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.serve.app import create_app
from dlmdecode.serve.reading import Served

PAGE = 4096  # bytes
LENGTH = 16
HEADERS = {"Content-Type": "application/json"}


def ask(port: int, prompt: str, leaves: bool) -> str | None:
    """The text that the server writes; None for who leaves before the end."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": LENGTH, "stream": leaves}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
        response = connection.getresponse()
        if leaves:
            response.read(1)
            return None
        return json.load(response)["choices"][0]["text"]
    finally:
        connection.close()


def started(model: Any, batch_size: int) -> tuple[uvicorn.Server, threading.Thread, int]:
    app = create_app(model, Served("tiny"), batch_size=batch_size)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return server, thread, server.servers[0].sockets[0].getsockname()[1]


def held() -> str:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return f"{pages * PAGE / 2**20:.0f} MiB"


def wrong(texts: Sequence[str | None], expected: Sequence[str]) -> int:
    return sum(
        text is not None and text != expected[i % len(expected)] for i, text in enumerate(texts)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    model = dlmdecode.load("tiny")
    prompts = [problem(seed, "heldout").question for seed in range(40)]
    expected = [dlmdecode.generate(model, p, max_new_tokens=LENGTH).texts[0] for p in prompts]
    server, thread, port = started(model, args.batch_size)
    texts: list[str | None] = []
    share = args.requests // 5
    with ThreadPoolExecutor(args.clients) as clients:
        for first in range(0, args.requests, share):
            numbers = range(first, first + share)
            texts += clients.map(lambda i: ask(port, prompts[i % 40], i % 10 == 9), numbers)
            print(f"{len(texts)} requests: {held()}", flush=True)
    left = sum(text is None for text in texts)
    print(f"{len(texts) - left} answered, {wrong(texts, expected)} not as by generate; {left} left")
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
