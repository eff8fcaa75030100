"""The HTTP client of providers against servers that say exactly what the test has them say."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chat_gateway.providers import upstream as module
from chat_gateway.providers.upstream import ConnectFailed, Disconnected, NotHttp, Response, Upstream
from tests.servers.certificates import Authority, CertificateFolder

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"


class Server:
    """Answers each request of a connection with the next of `answers`; `parts` cuts it, `closes` ends it."""

    def __init__(self, *answers: bytes, part: int = 0, closes: bool = False) -> None:
        self._answers = list(answers)
        self._part = part
        self._closes = closes
        self.connections = 0
        self.left = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0)
                for start in range(0, len(answer), self._part or len(answer)):
                    writer.write(answer[start : start + (self._part or len(answer))])
                    if self._part:
                        await asyncio.sleep(0)
                await writer.drain()
                if self._closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.left += 1
        finally:
            writer.close()


@asynccontextmanager
async def calling(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    made = Upstream(f"{scheme}://{host}:{server.port}/v1/", connect_timeout=5)
    try:
        yield made
    finally:
        made.close()
        for writer in server.writers:
            writer.close()
        listener.close()
        await listener.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def whole(response: Response) -> bytes:
    async with response:
        parts = []
        while part := await response.read():
            parts.append(part)
    return b"".join(parts)


async def post(upstream: Upstream, body: bytes = b"{}") -> bytes:
    return await whole(await upstream.post(upstream.head("/chat", {"X-Own": "yes"}), body))


async def test_a_request_is_what_was_asked_for() -> None:
    server = Server(OK)
    async with calling(server) as upstream:
        assert await post(upstream, b"body") == b"hello"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert body == b"body"
        assert head.split(b"\r\n") == [
            b"POST /v1/chat HTTP/1.1",
            b"Host: 127.0.0.1:%d" % server.port,
            b"X-Own: yes",
            b"Content-Length: 4",
        ]


async def test_a_connection_serves_call_after_call() -> None:
    server = Server(OK, CHUNKED, OK)
    async with calling(server) as upstream:
        assert [await post(upstream) for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 1


async def test_calls_at_once_have_connections_of_their_own() -> None:
    server = Server(OK, OK, OK)
    async with calling(server) as upstream:
        assert await asyncio.gather(*(post(upstream) for _ in range(3))) == [b"hello"] * 3
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer", [OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"HTTP/1.1 103 H\r\nA: b\r\n\r\n" + OK]
)
async def test_the_network_may_cut_a_response_anywhere(answer: bytes) -> None:
    server = Server(answer, OK, part=1)
    async with calling(server) as upstream:
        response = await upstream.post(upstream.head("/chat", {}), b"")
        assert response.status == 200
        assert "a" not in response.headers
        assert await whole(response) == b"hello"
        assert await post(upstream) == b"hello"
        assert server.connections == 1


async def test_status_and_headers_are_told() -> None:
    server = Server(b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
    async with calling(server) as upstream:
        response = await upstream.post(upstream.head("/chat", {}), b"")
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert await whole(response) == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
    ],
)
async def test_a_connection_that_the_server_ends_is_not_used_again(answer: bytes) -> None:
    server = Server(answer, answer, closes=True)
    async with calling(server) as upstream:
        assert [await post(upstream), await post(upstream)] == [b"hello"] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", CHUNKED[:-20]]
)
async def test_a_response_that_is_cut_short_is_an_error(answer: bytes) -> None:
    server = Server(answer, closes=True)
    async with calling(server) as upstream:
        with pytest.raises(Disconnected):
            await post(upstream)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 1000) * 80,
    ],
    ids=["no HTTP", "no length", "upgrade", "encoded", "endless head"],
)
async def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    server = Server(answer)
    async with calling(server) as upstream:
        with pytest.raises(NotHttp):
            await post(upstream)
        await until(lambda: server.left == 1)


async def test_leaving_early_ends_the_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", OK)
    async with calling(server) as upstream:
        async with await upstream.post(upstream.head("/chat", {}), b"") as response:
            assert await response.read() == b"hello"
        await until(lambda: server.left == 1)
        assert await post(upstream) == b"hello"


async def test_a_cancelled_call_ends_its_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n")
    async with calling(server) as upstream:
        task = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        task.cancel()
        await until(lambda: server.left == 1)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.1)
    server = Server(OK, OK)
    async with calling(server) as upstream:
        await post(upstream)
        await until(lambda: server.left == 1)
        assert await post(upstream) == b"hello"


async def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    server = Server(OK, OK)
    async with calling(server) as upstream:
        await post(upstream)
        server.writers[0].close()
        await asyncio.sleep(0.05)
        assert await post(upstream) == b"hello"
        assert server.connections == 2


async def test_what_comes_unasked_is_no_answer_to_the_next_call() -> None:
    server = Server(OK, OK)
    async with calling(server) as upstream:
        await post(upstream)
        server.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await asyncio.sleep(0.05)
        assert await post(upstream) == b"hello"
        assert server.connections == 2


async def test_a_server_is_read_from_as_fast_as_its_answer_is() -> None:
    size = 30_000_000
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    async with calling(server) as upstream:
        async with await upstream.post(upstream.head("/chat", {}), b"") as response:
            await asyncio.sleep(0.3)
            first = await response.read()
            assert len(first) < 2_000_000, "the rest is still on its way"
            while part := await response.read():
                first = part
                size -= len(part)
        assert size < 2_000_000


async def test_nobody_there() -> None:
    server = Server()
    async with calling(server) as upstream:
        pass
    with pytest.raises(ConnectFailed):
        await post(upstream)


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CertificateFolder(tmp_path, Authority(), "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    server = Server(OK)
    async with calling(server, context) as stranger:
        with pytest.raises(ConnectFailed):
            await post(stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    server = Server(OK, OK)
    async with calling(server, context) as upstream:
        assert [await post(upstream), await post(upstream)] == [b"hello"] * 2
        assert server.connections == 1


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\x00", "ä"])
async def test_a_header_that_can_not_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="X-Own"):
        Upstream("http://host/v1", connect_timeout=1).head("/chat", {"X-Own": value})
