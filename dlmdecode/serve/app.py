"""The HTTP application."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from dlmdecode.serve.errors import Refused
from dlmdecode.serve.metrics import Metrics
from dlmdecode.serve.page import page
from dlmdecode.serve.pool import Pool
from dlmdecode.serve.reading import Served, parse, read
from dlmdecode.serve.session import Left, Session


def create_app(
    model: Any, served: Served, *, batch_size: int = 16, api_key: str | None = None
) -> FastAPI:
    """The application that serves a loaded model; it decodes from its start-up to its shutdown.

    Args:
        model: a `Denoiser` with a tokenizer.
        batch_size: texts in flight at a time, of each sampler with its settings.
        api_key: what clients must send as their bearer token; None lets all in.
    """
    pool = Pool(model, batch_size, served.limits)
    metrics = Metrics(pool)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        pool.start()
        try:
            yield
        finally:
            await asyncio.to_thread(pool.close)

    app = FastAPI(
        title="dlmdecode", lifespan=running, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.pool = pool
    answer_errors(app, metrics)

    async def complete(request: Request, chat: bool) -> Response:
        check_key(request, api_key)
        wanted = read(parse(await body_of(request, served.limits.body)), served, chat=chat)
        session = Session(wanted, pool, metrics, served.name, chat)
        await asyncio.to_thread(session.begin)
        if wanted.stream:
            response: Response = Events(session)
        else:
            response = JSONResponse(await session.whole(request.receive))
        count(metrics, request, 200)
        return response

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await complete(request, chat=True)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await complete(request, chat=False)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        check_key(request, api_key)
        return JSONResponse({"object": "list", "data": [card(served)]})

    @app.get("/v1/models/{name:path}")
    async def one_model(request: Request, name: str) -> Response:
        check_key(request, api_key)
        if name != served.name:
            raise Refused("there is no such model", "model", status=404, code="model_not_found")
        return JSONResponse(card(served))

    @app.get("/health")
    async def health() -> Response:
        lives = pool.thread.is_alive() and not pool.closed
        return JSONResponse({"status": "ok" if lives else "down"}, 200 if lives else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/")
    async def front() -> Response:
        html, headers = page(served)
        return HTMLResponse(html, headers=headers)

    return app


class Events(StreamingResponse):
    """The stream of a session, which is finished however it ends."""

    def __init__(self, session: Session):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(session.stream(), media_type="text/event-stream", headers=headers)
        self.session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.session.finish()


def card(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "dlmdecode"}


def check_key(request: Request, key: str | None) -> None:
    if key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), key.encode()):
        message = "send the API key of this server as a bearer token"
        raise Refused(message, status=401, kind="authentication_error", code="invalid_api_key")


async def body_of(request: Request, most: int) -> bytes:
    """The body, which is JSON by its type, so that no page of another site can send one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("send the body as application/json", status=415)
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > most:
                raise Refused(f"the body is larger than {most} bytes", status=413)
    except ClientDisconnect:
        raise Left from None
    return bytes(content)


def count(metrics: Metrics, request: Request, status: int) -> None:
    """Count a request under the path of its route: a client cannot invent more of them."""
    route = request.scope.get("route")
    metrics.requests.labels(getattr(route, "path", "other"), str(status)).inc()


def answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every error in OpenAI's form."""

    def respond(request: Request, error: Refused) -> Response:
        count(metrics, request, error.status)
        headers = {"Retry-After": "1"} if error.status == 429 else None
        return JSONResponse(error.body(), error.status, headers)

    @app.exception_handler(Refused)
    async def refuse(request: Request, error: Refused) -> Response:
        return respond(request, error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return respond(request, Refused(str(error.detail), status=error.status_code))

    @app.exception_handler(Left)
    async def left(request: Request, error: Left) -> Response:
        return respond(request, Refused("the client has left", status=499))

    @app.exception_handler(Exception)
    async def crash(request: Request, error: Exception) -> Response:
        return respond(request, Refused("internal error", status=500, kind="server_error"))
