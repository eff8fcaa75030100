"""Heads that a metrics port gets, and bodies in chunks that the HTTP edge gets."""

import asyncio
import functools
import itertools
from contextlib import suppress
from typing import Any

import httptools
import uvicorn
from hypothesis import strategies as st

from chat_gateway.http_edge.wire.protocol import BoundedHttpProtocol, SharedState
from servicekit.metrics import read_request
from tests.fuzz.inputs import damaged

metrics_heads = damaged(
    b"GET /metrics?a=b HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n",
    b"HEAD /livez HTTP/1.0\r\nempty:\r\n\r\n",
) | st.binary(max_size=60)
_HEAD = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
_BODIES = (
    b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
    b"000a\r\n0123456789\r\n0\r\nx-user-id: mallory\r\n\r\n",
    b"1;" + b"e" * 40 + b"\r\n \r\nFFFFFFFFFFFFFFFF\r\n",
    b"0\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"0\r\n\r\n" + _HEAD + b"2\r\nhi\r\n0\r\n\r\n",
)
chunked_bodies = st.tuples(damaged(*_BODIES), st.lists(st.integers(0, 400), max_size=8))


class _Target:
    """What another parser takes of the same bytes."""

    def __init__(self) -> None:
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url


def metrics_head(data: bytes) -> None:
    """What is taken is a path that another parser of HTTP finds there, too."""
    head = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    request = read_request(head)
    if request is None:
        return
    method, path, accept = request
    assert path.startswith("/")
    assert not {"\r", "\n", "\0"} & set(method + path + accept)
    found = _Target()
    parser = httptools.HttpRequestParser(found)
    with suppress(httptools.HttpParserError):
        parser.feed_data(head)
        assert (parser.get_method().decode(), found.url.partition(b"?")[0].decode()) == (method, path)


class _Transport(asyncio.Transport):
    """Takes everything, and is never read slowly."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Answers once the body is whole, and keeps the request."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    _whole.append((scope["path"], tuple(scope["headers"]), body))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


_Request = tuple[str, tuple[tuple[bytes, bytes], ...], bytes]
"""Path, headers and body."""
_whole: list[_Request] = []


@functools.cache
def _config() -> uvicorn.Config:
    return uvicorn.Config(
        _app, http=BoundedHttpProtocol, loop="none", ws="none", lifespan="off", interface="asgi3", log_config=None
    )


async def _served(pieces: list[bytes]) -> tuple[list[_Request], list[bytes]]:
    """Returns the requests that are served, and the statuses of all answers."""
    _whole.clear()
    state, transport = SharedState(_app), _Transport()
    connection = BoundedHttpProtocol(_config(), state, {}, asyncio.get_running_loop())
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
        await _until_idle(state)
    connection.connection_lost(None)
    await _until_idle(state)
    assert not state.tasks
    statuses = [part[:3] for part in transport.written.split(b"HTTP/1.1 ")[1:]]
    return list(_whole), statuses


async def _until_idle(state: SharedState) -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def chunked_body(data: tuple[bytes, list[int]]) -> None:
    """However the network cuts a request, the same is served and answered; and a trailer is no header."""
    body, cuts = data
    stream = _HEAD + body
    bounds = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds) if end > start]

    async def both() -> list[_Request]:
        requests, statuses = await _served([stream])
        assert (requests, statuses) == await _served(pieces)
        return requests

    # What follows the first request in the stream is another one, with headers of its own.
    for path, headers, _ in asyncio.run(both())[:1]:
        assert path == "/a"
        assert headers == ((b"host", b"x"), (b"transfer-encoding", b"chunked"))
