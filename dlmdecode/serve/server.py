"""The HTTP server around the application."""

from __future__ import annotations

import asyncio
import socket

import uvicorn


class Server(uvicorn.Server):
    """Ends what is being decoded when it is told to stop, so that its clients hear of it."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self.config.app.state.pool.close)  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(app: object, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises `SystemExit` where it cannot listen."""
    server = Server(uvicorn.Config(app, host=host, port=port, timeout_graceful_shutdown=5))  # type: ignore[arg-type]
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    if not server.started:
        raise SystemExit(3)
