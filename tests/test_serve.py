"""The server: OpenAI's client reads its answers, and each text is that of its single run."""

import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
import httpx  # noqa: E402
import uvicorn  # noqa: E402
from toy import EOS, fond_of, talking  # noqa: E402

import dlmdecode  # noqa: E402
from dlmdecode.engine import Engine  # noqa: E402
from dlmdecode.serve.app import create_app  # noqa: E402
from dlmdecode.serve.limits import Limits  # noqa: E402
from dlmdecode.serve.reading import Served, refused  # noqa: E402
from dlmdecode.serve.reading import read as read_body  # noqa: E402
from dlmdecode.serve.server import Server  # noqa: E402
from dlmdecode.trace import read  # noqa: E402

LIMITS = Limits(body=4096, tokens=64, choices=4, queue=100, engines=3)
MESSAGES = [{"role": "user", "content": "w5 w6 w7"}]


@cache
def chatty():
    """A model that writes words, as many as it is asked for."""
    model = fond_of(talking(), EOS, -9.0)
    model.max_length = None
    return model


def soon(holds):
    """Whether it holds within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


@contextmanager
def serving(model, limits=LIMITS, api_key=None, options=None, name="toy", **more):
    served = Served(name, True, options=options or {"max_new_tokens": 16}, limits=limits)
    app = create_app(model, served, api_key=api_key, **{"batch_size": 4} | more)
    server = Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=60))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert soon(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=api_key or "none", max_retries=0)
    try:
        with client, httpx.Client(base_url=url, timeout=60) as http:
            pool, stop = app.state.pool, lambda: setattr(server, "should_exit", True)
            yield SimpleNamespace(client=client, http=http, pool=pool, port=port, stop=stop)
    finally:
        server.should_exit = True
        thread.join(timeout=60)
    assert not thread.is_alive() and not app.state.pool.thread.is_alive()


@pytest.fixture(scope="module")
def server():
    with serving(chatty()) as found:
        yield found


def alone(prompt, sampler="threshold", **options):
    return dlmdecode.generate(chatty(), prompt, sampler, **{"max_new_tokens": 16} | options)


def idle(pool):
    return soon(lambda: not pool.num_waiting() and not pool.num_in_flight())


def test_a_chat_is_answered_with_the_text_of_its_single_run(server):
    out = server.client.chat.completions.create(model="toy", messages=MESSAGES)
    single = alone(MESSAGES)
    (choice,) = out.choices
    assert choice.message.content == single.texts[0] and choice.finish_reason == "length"
    assert out.usage.prompt_tokens == single.prompt_lengths[0]
    assert out.usage.completion_tokens == single.new_tokens[0] == 16
    assert out.usage.nfe == single.nfe[0]
    assert [model.id for model in server.client.models.list()] == ["toy"]
    assert server.client.models.retrieve("toy").id == "toy"


def test_a_stream_gives_the_same_text_piece_by_piece(server):
    body = dict(model="toy", messages=MESSAGES, stream=True, max_tokens=24)
    parts = list(
        server.client.chat.completions.create(**body, stream_options={"include_usage": True})
    )
    pieces = [part.choices[0].delta.content or "" for part in parts if part.choices]
    single = alone(MESSAGES, max_new_tokens=24)
    assert "".join(pieces) == single.texts[0] and sum(map(bool, pieces)) > 1
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "length"
    assert parts[-1].usage.completion_tokens == single.new_tokens[0]


def test_a_text_that_ends_by_itself_says_so():
    model = fond_of(chatty(), EOS, 9.5)
    with serving(model) as server:
        out = server.client.completions.create(model="toy", prompt="w3 w4 w5", max_tokens=32)
    single = dlmdecode.generate(model, "w3 w4 w5", max_new_tokens=32)
    assert single.new_tokens[0] < 32 and out.choices[0].finish_reason == "stop"
    assert out.choices[0].text == single.texts[0]
    assert out.usage.completion_tokens == single.new_tokens[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_a_text_as_it_does_in_generate(server, stream):
    words = alone("w1 w2 w3").texts[0].split()
    stop = f"{words[6]} {words[7][:2]}"
    single = alone("w1 w2 w3", stop_strings=[stop, "no such word"])
    body = dict(model="toy", prompt="w1 w2 w3", stop=[stop, "no such word"])
    if stream:
        parts = list(server.client.completions.create(**body, stream=True))
        text, reason = "".join(p.choices[0].text for p in parts), parts[-1].choices[0].finish_reason
    else:
        out = server.client.completions.create(**body)
        text, reason = out.choices[0].text, out.choices[0].finish_reason
        assert out.usage.completion_tokens == single.new_tokens[0] < 16
    assert (text, reason) == (single.texts[0], "stop")
    assert idle(server.pool)


def test_several_prompts_and_several_texts_are_those_of_generate(server):
    ids = [[1, 2, 3], [4, 5, 6, 7]]
    extra = {"sampler": "threshold,threshold=0.3", "block_length": 8}
    out = server.client.completions.create(
        model="toy", prompt=ids, n=2, temperature=0.9, seed=3, extra_body=extra
    )
    given = dict(num_return_sequences=2, temperature=0.9, seed=3, threshold=0.3, block_length=8)
    assert [choice.text for choice in out.choices] == alone(ids, **given).texts
    assert [choice.index for choice in out.choices] == [0, 1, 2, 3]


def test_the_canvas_of_every_step_comes_in_the_stream(server):
    body = {"model": "toy", "prompt": "w1 w2", "stream": True, "canvas": True, "sampler": "klass"}
    with server.http.stream("POST", "/v1/completions", json=body) as response:
        lines = [line[6:] for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines.pop() == "[DONE]"
    views = [part["canvas"] for part in map(json.loads, lines) if "canvas" in part]
    steps = list(dlmdecode.stream(chatty(), "w1 w2", "klass", max_new_tokens=16))
    assert [view["step"] for view in views] == [step.number for step in steps]
    masks = [sum(token is None for token in view["tokens"]) for view in views]
    assert masks == [int(step.masks_left[0]) for step in steps]
    assert " ".join(views[-1]["tokens"]) == alone("w1 w2", "klass").texts[0]


def test_64_requests_at_once_all_get_the_texts_of_their_single_runs(server):
    draw = random.Random(0)
    asked = [
        (" ".join(f"w{draw.randrange(310)}" for _ in range(draw.randrange(1, 20))),
         draw.choice(["threshold", "klass"]), draw.randrange(4, 9))
        for _ in range(64)
    ]  # fmt: skip

    def ask(one):
        prompt, sampler, length = one
        out = server.client.completions.create(
            model="toy", prompt=prompt, max_tokens=length, extra_body={"sampler": sampler}
        )
        return out.choices[0].text

    with ThreadPoolExecutor(64) as threads:
        texts = list(threads.map(ask, asked))
    assert texts == [alone(p, s, max_new_tokens=n).texts[0] for p, s, n in asked]
    assert idle(server.pool)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(stream):
    limits = Limits(tokens=4096)
    with serving(chatty(), limits, batch_size=1) as server:
        body = json.dumps({"model": "toy", "prompt": "w1", "max_tokens": 3000, "stream": stream,
                           "sampler": "vanilla"}).encode()  # fmt: skip
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            leaving.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            assert soon(server.pool.num_in_flight)
            if stream:
                assert leaving.recv(20) == b"HTTP/1.1 200 OK\r\ndat"
        out = server.client.completions.create(
            model="toy", prompt="w2", max_tokens=4, extra_body={"sampler": "vanilla"}
        )
        assert out.choices[0].text == alone("w2", "vanilla", max_new_tokens=4).texts[0]
        assert idle(server.pool)
        assert "dlmdecode_clients_left_total 1.0" in server.http.get("/metrics").text


def malformed():
    """200 requests that are all wrong in some way."""
    good = {"model": "toy", "prompt": "w1"}
    values = [{}, [], [[]], "x" * 9, -1, 0.5, 10**30, True, [1, "a"], [None], {"a": {"b": []}}]
    names = ["prompt", "max_tokens", "n", "stop", "temperature", "stream", "seed", "sampler",
             "cache", "block_length", "suffix", "top_p", "length", "eos", "threshold", "tools",
             "logprobs", "logit_bias", "canvas", "unknown", "stream_options", "batch_size",
             "suppress_tokens", "negative_prompt", "steps"]  # fmt: skip
    fine = [
        ("prompt", "x" * 9),
        ("stop", "x" * 9),
        ("stop", []),
        ("seed", -1),
        ("tools", []),
        ("temperature", 0.5),
        ("threshold", 0.5),
        ("stream", True),
        ("logit_bias", {}),
    ]
    every = [{**good, name: value} for name in names for value in values
             if (name, value) not in fine]  # fmt: skip
    return random.Random(0).sample(every, 169)


def test_200_malformed_requests_each_get_a_4xx_and_the_server_lives(server):
    post = server.http.post
    json_type = {"content-type": "application/json"}
    found = [post("/v1/completions", json=body) for body in malformed()]
    raw = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": NaN}', b"[" * 4000, b"x" * 5000,
           b'{"model": "toy", "prompt": "\\ud800"}', b"1" * 4000]  # fmt: skip
    found += [post("/v1/completions", content=one, headers=json_type) for one in raw]
    chats = [None, [], [1], [[]], "hi", [{}], [{"role": "user"}], [{"role": "x", "content": "y"}],
             [{"role": "user", "content": 3}], [{"role": "user", "content": [{"type": "image"}]}],
             [{"role": "user", "content": "a", "tool_calls": []}], {"role": "user"}]  # fmt: skip
    found += [post("/v1/chat/completions", json={"model": "toy", "messages": m}) for m in chats]
    found += [
        post("/v1/completions", json={"prompt": "w1"}),
        post("/v1/completions", json={"model": "other", "prompt": "w1"}),
        post("/v1/completions", content=b"{}"),
        post("/v1/completions", json={"model": "toy", "prompt": "w1", "canvas": True}),
        post("/v1/completions", json={"model": "toy", "prompt": "w1", "trace": True}),
        post("/v1/nothing", json={}),
        server.http.get("/v1/completions"),
        server.http.get("/v1/models/other"),
        post("/v1/completions", json={"model": "toy", "prompt": "w1", "sampler": "a,b=c"}),
    ]  # fmt: skip
    assert len(found) == 200
    for response in found:
        sent = response.request.content[:200]
        assert 400 <= response.status_code < 500, (sent, response.status_code)
        assert response.json()["error"]["message"], sent
    assert idle(server.pool) and server.http.get("/health").json() == {"status": "ok"}
    out = server.client.completions.create(model="toy", prompt="w1 w2")
    assert out.choices[0].text == alone("w1 w2").texts[0]


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"max_tokens": 65}, 400, "max_tokens", "at most 64 here"),
        ({"sampler": "threshold,max_new_tokens=65"}, 400, "max_new_tokens", "at most 64 here"),
        ({"n": 5, "temperature": 1.0}, 400, "n", "at most 4"),
        ({"n": 2}, 400, "n", "temperature"),
        ({"trace": "/tmp/run.jsonl", "stream": True}, 400, "trace", "give True or False"),
        ({"trace": True}, 400, "trace", "send stream, too"),
        ({"sampler": "thresold"}, 400, "sampler", "did you mean 'threshold'"),
        ({"ignore_eos": True}, 400, "ignore_eos", "unknown option"),
        ({"self": 1}, 400, "self", "unknown option"),
        ({"a.b": 1}, 400, "a.b", "unknown"),
        ({"max_tokens": 64, "block_length": 65}, 400, "block_length", "give at most"),
        ({"threshold": 7}, 400, "threshold", "at most 2"),
        ({"presence_penalty": 1}, 400, "presence_penalty", "not served"),
        ({"prompt": "w1 " * 2000}, 413, None, "larger than 4096 bytes"),
        ({"sampler": "pc_sampler", "frequencies": "/etc/passwd"}, 400, "frequencies", "a file"),
    ],
)
def test_what_is_wrong_or_too_much_is_named(server, body, status, param, message):
    response = server.http.post("/v1/completions", json={"model": "toy", "prompt": "w1"} | body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert message in error["message"] and error["type"] == "invalid_request_error"


def test_an_argument_has_the_name_that_the_client_gave_it(server):
    messages = [{"role": "user"}]
    response = server.http.post("/v1/chat/completions", json={"model": "toy", "messages": messages})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")
    late = ValueError("max_new_tokens=8: the longest prompt has 600 tokens")
    body = {"model": "toy", "prompt": "w1", "max_completion_tokens": 8}
    assert refused(late, read_body(body, Served("toy"), chat=False).names).param in body


def test_errors_are_those_of_the_openai_client(server):
    with pytest.raises(openai.NotFoundError, match="there is 'toy' here"):
        server.client.completions.create(model="gpt", prompt="w1")
    with pytest.raises(openai.BadRequestError, match="temperature=-1"):
        server.client.completions.create(model="toy", prompt="w1", temperature=-1)


def test_a_queue_that_is_full_refuses_with_429():
    limits = Limits(tokens=4096, queue=2)
    with serving(chatty(), limits, batch_size=1) as server, ThreadPoolExecutor(4) as threads:
        slow = {"model": "toy", "prompt": "w1", "max_tokens": 2000, "sampler": "vanilla"}

        def patient(body):
            with server.http.stream("POST", "/v1/completions", json=body | {"stream": True}) as r:
                while not full.is_set() and r.status_code == 200:
                    time.sleep(0.01)
                return r.status_code

        full = threading.Event()
        try:
            waiting = [threads.submit(patient, slow)]
            assert soon(server.pool.num_in_flight)  # it no longer waits
            waiting += [threads.submit(patient, slow) for _ in range(2)]
            assert soon(lambda: server.pool.num_waiting() == 2)
            response = server.http.post("/v1/completions", json=slow)
        finally:
            full.set()
        assert [one.result() for one in waiting] == [200] * 3
        assert response.status_code == 429 and response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "rate_limit_error"


def test_only_who_has_the_key_is_answered():
    with serving(chatty(), api_key="secret") as server:
        assert server.client.completions.create(model="toy", prompt="w1").choices[0].text
        for path in ("/v1/models", "/v1/models/toy"):
            assert server.http.get(path).status_code == 401
        wrong = {"authorization": "Bearer sécret".encode()}
        body = {"model": "toy", "prompt": "w1"}
        assert server.http.post("/v1/completions", json=body, headers=wrong).status_code == 401
        assert server.http.get("/health").status_code == 200


def test_stop_strings_of_the_server_end_streams_too():
    body = dict(model="toy", prompt="w1 w2")
    with serving(chatty()) as server:
        text = server.client.completions.create(**body).choices[0].text
    stop = text.split()[3]
    with serving(chatty(), options={"max_new_tokens": 16, "stop_strings": (stop,)}) as server:
        cut = server.client.completions.create(**body).choices[0].text
        parts = server.client.completions.create(**body, stream=True)
        assert cut == "".join(part.choices[0].text for part in parts) == text[: text.index(stop)]
        own = server.client.completions.create(**body, stop=text.split()[5]).choices[0].text
        assert own == text[: text.index(text.split()[5])]


def test_a_shutdown_ends_what_is_being_decoded():
    with serving(chatty(), Limits(tokens=4096), batch_size=1) as server:
        body = dict(model="toy", prompt="w1", max_tokens=3000, stream=True)
        stream = server.client.completions.create(**body, extra_body={"sampler": "vanilla"})
        next(iter(stream))
        server.pool.close()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
        assert server.http.get("/health").status_code == 503


def test_a_server_that_stops_tells_its_clients():
    with (
        serving(chatty(), Limits(tokens=4096), batch_size=2) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        body = dict(model="toy", prompt="w1", max_tokens=3000, extra_body={"sampler": "vanilla"})
        stream = server.client.completions.create(**body, stream=True)
        next(iter(stream))
        other = threads.submit(server.client.completions.create, **body)
        assert soon(lambda: server.pool.num_in_flight() == 2)
        server.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            other.result()


def test_the_page_runs_no_script_but_its_own(server):
    response = server.http.get("/")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not any(
        way in response.text for way in ("innerHTML", "insertAdjacentHTML", "document.write")
    )


def test_metrics_count_requests_and_tokens(server):
    server.client.completions.create(model="toy", prompt="w1")
    text = server.http.get("/metrics").text
    for line in ("dlmdecode_tokens_total", "dlmdecode_in_flight 0.0", "dlmdecode_waiting 0.0"):
        assert line in text
    assert 'dlmdecode_requests_total{path="/v1/completions",status="200"}' in text


def test_the_trace_in_a_stream_is_that_of_generate(server, tmp_path):
    body = {"model": "toy", "prompt": "w1 w2", "stream": True, "trace": True, "sampler": "wino"}
    with server.http.stream("POST", "/v1/completions", json=body) as response:
        lines = [json.loads(line[6:]) for line in response.iter_lines() if line[6:7] == "{"]
    path = tmp_path / "stream.jsonl"
    path.write_text("".join(json.dumps(line["trace"]) + "\n" for line in lines if "trace" in line))
    single = alone("w1 w2", "wino", trace=tmp_path / "single.jsonl")
    (own,), (alike,) = read(path), read(tmp_path / "single.jsonl")
    timeless = [[step | {"seconds": 0, "index": 0} for step in run.steps] for run in (own, alike)]
    assert timeless[0] == timeless[1] and own.vocabulary == alike.vocabulary
    assert own.header["rows"] == alike.header["rows"] and own.header["sampler"] == "wino"
    assert own.end["texts"] == single.texts and own.end["new_tokens"] == single.new_tokens


@pytest.mark.parametrize(
    ("sampler", "own", "body"),
    [
        ("threshold,threshold=0.8", {}, {"sampler": "vanilla"}),
        ("threshold,threshold=0.8", {}, {"threshold": 0.5}),
        ("threshold,threshold=0.8", {}, {"threshold.threshold": 0.5}),
        ("threshold", {"block_length": 32, "suffix": 16}, {"max_tokens": 8}),
        ("vanilla", {"steps": 32}, {"max_tokens": 8}),
        ("threshold", {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0}),
        ("threshold", {"cfg_scale": 1.0, "negative_prompt": "w1"}, {"cfg_scale": 0}),
    ],
)
def test_what_a_request_says_goes_before_the_servers_own(sampler, own, body):
    served = Served("toy", True, sampler, {"max_new_tokens": 32} | own)
    wanted = read_body({"model": "toy", "prompt": "w1"} | body, served, chat=False)
    given = {name.rpartition(".")[2]: value for name, value in wanted.options.items()}
    assert all(given[name] == body[name] for name in given.keys() & body.keys())
    assert wanted.sampler == body.get("sampler", sampler.partition(",")[0])
    left = {"threshold", "block_length", "suffix", "steps", "top_p", "negative_prompt"}
    assert not (given.keys() & left) - {name.rpartition(".")[2] for name in body}
    given = {name: value for name, value in wanted.options.items() if value is not None}
    Engine(chatty(), wanted.sampler, max_new_tokens=wanted.length, **given)
