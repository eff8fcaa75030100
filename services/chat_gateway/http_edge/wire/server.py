"""The HTTP server: uvicorn inside our own lifecycle."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from litestar.types import ASGIApp

from chat_gateway.http_edge.wire.protocol import HEAD_TIMEOUT, BoundedHttpProtocol, SharedState
from servicekit.errors import StartupError
from servicekit.supervision import supervise
from servicekit.tls import Certificates, server_context

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than the usual load balancer keeps its own."""
BACKLOG = 2048
_POLL = 0.05
_CANCEL_GRACE = 2.0


class HttpServer:
    """A server that is listening on `port`, and the steps of its shutdown, each of them idempotent."""

    def __init__(self, port: int, server: uvicorn.Server, state: SharedState) -> None:
        self.port = port
        self._server = server
        self._state = state

    def retire(self) -> None:
        """Keeps serving, but closes each connection after its next answer (`Connection: close`)."""
        self._state.retiring = True

    def stop_accepting(self) -> None:
        """Takes no new connection or request from now on; requests in flight continue."""
        self.retire()
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()


@contextlib.asynccontextmanager
async def http_serving(
    app: ASGIApp,
    host: str,
    port: int,
    drain_timeout: float,
    tls: Certificates | None = None,
    *,
    head_timeout: float = HEAD_TIMEOUT,
) -> AsyncIterator[HttpServer]:
    """Serves `app` on `host:port` (0: any free port) while open; raises `StartupError` when the port can't be bound.

    With `tls` it speaks HTTPS; a new connection gets the newest certificates. A request's line and headers have
    `head_timeout` seconds to arrive.

    Leaving stops accepting, lets requests in flight finish for `drain_timeout` seconds, cancels the rest (they are
    answered with DRAINING) and closes. No signal handlers, no access log, no lifespan.
    """
    listener = _listen(host, port)
    server = uvicorn.Server(_config(app))
    server.config.load()
    if tls is not None:
        server.config.ssl = server_context(tls)
    server.lifespan = server.config.lifespan_class(server.config)
    server.server_state = state = SharedState(head_timeout)
    try:
        await server.startup(sockets=[listener])
        ticker = asyncio.create_task(supervise("http_date", lambda: _tick(server)), name="http_date")
        try:
            running = HttpServer(listener.getsockname()[1], server, state)
            yield running
        finally:
            running.stop_accepting()
            await _drain(server, drain_timeout)
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
    finally:
        listener.close()


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=BACKLOG,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(address[0], address[1], address[2])
    except OSError as error:
        raise StartupError(f"cannot serve HTTP on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address[4])
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot serve HTTP on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
    return listener


async def _tick(server: uvicorn.Server) -> None:
    """Keeps the Date header current."""
    while True:
        await server.on_tick(0)
        await asyncio.sleep(1.0)


async def _drain(server: uvicorn.Server, drain_timeout: float) -> None:
    state = server.server_state
    await _until_idle(server, drain_timeout)
    for task in list(state.tasks):
        task.cancel()
    await _until_idle(server, _CANCEL_GRACE)
    for connection in list(state.connections):
        if connection.transport is not None:
            connection.transport.close()


async def _until_idle(server: uvicorn.Server, timeout: float) -> None:
    state = server.server_state
    deadline = asyncio.get_running_loop().time() + timeout
    while (state.connections or state.tasks) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL)
