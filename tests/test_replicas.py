"""Two replicas under Ray Serve share the requests, and each text is as by `generate`."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("ray.serve", reason="pip install 'dlmdecode[ray]'", exc_type=ImportError)
openai = pytest.importorskip("openai")
import httpx  # noqa: E402

import dlmdecode  # noqa: E402

pytestmark = pytest.mark.slow
WAIT = 240  # seconds: each replica imports torch


@pytest.fixture
def client(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dlmdecode", "serve", "--model", "tiny", "--port", str(port)]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, "--replicas", "2"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + WAIT
        while not answers(f"{url}/health"):
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.5)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)


def answers(url):
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_two_replicas_answer_as_generate_does(client):
    prompts = [f"Tom has {n} apples. He buys 8 more. How many now?" for n in range(2, 14)]

    def ask(prompt):
        out = client.completions.create(model="tiny", prompt=prompt, max_tokens=16)
        return out.choices[0].text

    with ThreadPoolExecutor(6) as threads:
        texts = list(threads.map(ask, prompts))
    assert texts == [dlmdecode.generate("tiny", p, max_new_tokens=16).texts[0] for p in prompts]
    parts = list(client.completions.create(model="tiny", prompt=prompts[0], stream=True))
    assert parts[-1].choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="tiny", prompt="a", temperature=-1)
