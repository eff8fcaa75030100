"""The HTTP server: uvicorn inside our own lifecycle."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection
from typing import Any

import uvicorn
from litestar.types import ASGIApp, Receive, Scope, Send

from chat_gateway.http_edge.wire.connections import ConnectionLimits
from chat_gateway.http_edge.wire.cors import with_cors
from chat_gateway.http_edge.wire.errors import encode_error, error_headers, http_status
from chat_gateway.http_edge.wire.protocol import HEAD_TIMEOUT, WRITE_TIMEOUT, BoundedHttpProtocol, SharedState
from servicekit.errors import StartupError, Unavailable
from servicekit.supervision import cancel_and_wait, supervise
from servicekit.tls import Certificates, server_context

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than the usual load balancer keeps its own."""
BACKLOG = 2048
HEALTH_PATHS = frozenset({"/livez", "/readyz", "/startedz", "/metrics"})
"""What connections beyond the limits are served."""
_TLS_HANDSHAKE_SECONDS = 10.0
_RETRY_AFTER = 1.0
_POLL = 0.05
_CANCEL_GRACE = 2.0


class HttpServer:
    """A server that is listening on `port`, and the steps of its shutdown, each of them idempotent."""

    def __init__(self, port: int, server: uvicorn.Server, state: SharedState) -> None:
        self.port = port
        self._server = server
        self._state = state

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

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
    write_timeout: float = WRITE_TIMEOUT,
    limits: ConnectionLimits | None = None,
    cors_origins: Collection[str] = (),
) -> AsyncIterator[HttpServer]:
    """Serves `app` on `host:port` (0: any free port) while open; raises `StartupError` when the port can't be bound.

    With `tls` it speaks HTTPS; a new connection gets the newest certificates. A request's line and headers have
    `head_timeout` seconds to arrive; a client that takes nothing of its answer for `write_timeout` seconds is cut off.
    Connections beyond the `limits` are served `HEALTH_PATHS` alone. Pages of `cors_origins` may read the answers.

    Leaving stops accepting, lets requests in flight finish for `drain_timeout` seconds, cancels the rest (they are
    answered with DRAINING) and closes. No signal handlers, no access log, no lifespan.
    """
    listener = _listen(host, port)
    server = uvicorn.Server(_config(with_cors(app, cors_origins)))
    server.config.load()
    if tls is not None:
        server.config.ssl = server_context(tls)
    server.lifespan = server.config.lifespan_class(server.config)
    within = (limits or ConnectionLimits()).within_open_files()
    server.server_state = state = SharedState(
        with_cors(_health_only(app), cors_origins), head_timeout, write_timeout, within
    )
    try:
        server.servers = [await _accepting(server, listener)]
        ticker = asyncio.create_task(supervise("http_ticks", lambda: _tick(server, state)), name="http_ticks")
        try:
            running = HttpServer(listener.getsockname()[1], server, state)
            yield running
        finally:
            running.stop_accepting()
            await _drain(server, drain_timeout)
            await cancel_and_wait(ticker)
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


async def _accepting(server: uvicorn.Server, listener: socket.socket) -> asyncio.Server:
    """Accepts connections as uvicorn's own start does, but that a handshake of TLS has less time."""
    loop = asyncio.get_running_loop()

    def connection() -> BoundedHttpProtocol:
        return BoundedHttpProtocol(
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state, _loop=loop
        )

    ssl = server.config.ssl
    timeout = _TLS_HANDSHAKE_SECONDS if ssl is not None else None
    return await loop.create_server(connection, sock=listener, ssl=ssl, backlog=BACKLOG, ssl_handshake_timeout=timeout)


def _health_only(app: ASGIApp) -> ASGIApp:
    """Returns an application that serves `HEALTH_PATHS` as `app` does, and refuses everything else."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope).get("path") in HEALTH_PATHS:
            await app(scope, receive, send)
            return
        error = Unavailable("the gateway, which has as many connections as it takes,", retry_after=_RETRY_AFTER)
        body = encode_error(error)
        length = (b"content-length", b"%d" % len(body))
        headers = [(b"content-type", b"application/json"), length, *error_headers(error)]
        await send({"type": "http.response.start", "status": http_status(error), "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return serve


async def _tick(server: uvicorn.Server, state: SharedState) -> None:
    """Keeps the Date header current, and ends connections that hold what they do not read."""
    loop = asyncio.get_running_loop()
    while True:
        await server.on_tick(0)
        state.cut_off_stalled(loop.time())
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
