"""A provider over the HTTP client, against servers that say exactly what the test has them say."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Delta
from chat_gateway.providers.http_client import open_client
from tests.servers.certificates import Authority, CertificateFolder
from tests.unit.chat_gateway.raw_provider import (
    BODY,
    BOUNDS,
    CALL,
    CHUNKED,
    ENDLESS,
    EVIL,
    LATER,
    OK,
    Server,
    answer,
    ask,
    calling,
    chunked,
    ignore,
    provider_at,
    until,
)
from tests.unit.event_loop import settle


async def test_a_request_is_what_was_asked_for() -> None:
    server = Server(OK)
    async with calling(server) as provider:
        assert await ask(provider) == "hello"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /v1/chat/completions HTTP/1.1"
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    assert headers[b"host"] == b"127.0.0.1:%d" % server.port
    assert headers[b"authorization"] == b"bearer key-1"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers[b"user-agent"] == b"parley/" + version("parley").encode()
    assert b"cookie" not in headers


async def test_a_connection_serves_call_after_call() -> None:
    server = Server(OK, CHUNKED, OK)
    async with calling(server) as provider:
        assert [await ask(provider) for _ in range(3)] == ["hello"] * 3
        assert server.connections == 1


async def test_calls_at_once_have_connections_of_their_own() -> None:
    server = Server(OK, OK, OK)
    async with calling(server) as provider:
        assert await asyncio.gather(*(ask(provider) for _ in range(3))) == ["hello"] * 3
        assert server.connections == 3


@pytest.mark.parametrize(
    "said",
    [
        OK,
        CHUNKED,
        chunked(BODY, trailers=b"Trailer: t\r\n"),
        CHUNKED.replace(b"7\r\n", b"7;x=y\r\n", 1),
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + OK,
    ],
    ids=["length", "chunked", "trailer", "extension", "100", "103"],
)
async def test_the_network_may_cut_a_response_anywhere(said: bytes) -> None:
    server = Server(said, OK, part=1)
    async with calling(server) as provider:
        assert [await ask(provider), await ask(provider)] == ["hello"] * 2
        assert server.connections == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        answer(headers="Connection: close\r\n"),
    ],
)
async def test_a_connection_that_the_server_ends_is_not_used_again(said: bytes) -> None:
    server = Server(said, said, closes=True)
    async with calling(server) as provider:
        assert [await ask(provider), await ask(provider)] == ["hello"] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 O", OK[:-3], CHUNKED[:-20]],
    ids=["nothing", "in the head", "in the body", "in a chunk"],
)
async def test_a_response_that_is_cut_short_is_an_error(said: bytes) -> None:
    server = Server(said or b" ", closes=True) if said else Server(b"\r\n", closes=True)
    async with calling(server) as provider:
        with pytest.raises(ProviderUnavailable, match="closed the connection before its answer was complete"):
            await ask(provider)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        OK.replace(b"Content-Length", b"Content-Length: 1\r\nContent-Length"),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        answer(headers="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * ENDLESS,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10 * ENDLESS,
        b"HTTP/1.1 200 " + b"O" * 10 * ENDLESS,
        CHUNKED.removesuffix(b"\r\n") + b"T: t\r\n" * ENDLESS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LATER + b"zz\r\n",
        CHUNKED.removesuffix(b"\r\n") + LATER + b"T: t\r\n" * ENDLESS,
        CHUNKED.removesuffix(b"\r\n") + LATER + b"T: " + b"t" * 10 * ENDLESS,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 10_000 + OK,
        CHUNKED.replace(b"\r\n\r\n", b"\r\n\r\n" + (b"1;" + b"x" * 100 + b"\r\n \r\n") * 10_000, 1),
        CHUNKED.replace(b"\r\n\r\n", b"\r\n\r\n" + b"1\r\n \r\n" * 60_000, 1),
    ],
    ids=[
        "no HTTP",
        "no length",
        "two lengths",
        "upgrade",
        "not gzip",
        "no chunk",
        "endless head",
        "endless header",
        "endless status line",
        "endless trailers",
        "no chunk, later",
        "endless trailers, later",
        "endless trailer, later",
        "heads that announce others",
        "chunk extensions",
        "small chunks",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_is_refused_and_its_connection_not_used_again(said: bytes, stream: bool) -> None:
    server = Server(said, OK)
    async with calling(server) as provider:
        with pytest.raises(ProviderBadResponse):
            await provider.complete(CALL, ignore if stream else None)
        if b"gzip" not in said:
            await until(lambda: server.left == 1)
        assert await ask(provider) == "hello"


async def test_an_answer_without_a_length_that_is_reset_is_not_whole() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n\r\n" + BODY + LATER)
    async with calling(server) as provider:
        task = asyncio.create_task(ask(provider))
        await until(lambda: len(server.writers) == 1)
        await asyncio.sleep(0.1)
        linger = struct.pack("ii", 1, 0)
        server.writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        server.writers[0].transport.abort()
        with pytest.raises(ProviderUnavailable, match="closed the connection before its answer was complete"):
            await task


async def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(BODY)
    said = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with calling(Server(said, OK)) as provider:
        assert await ask(provider) == "hello"


async def test_a_compressed_answer_is_bounded_by_what_it_unpacks_to() -> None:
    body = gzip.compress(bytes(200_000_000), 1)
    said = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with calling(Server(said)) as provider:
        with pytest.raises(ProviderBadResponse, match="longer than"):
            await ask(provider)


async def test_a_redirect_is_not_followed() -> None:
    server = Server(b"HTTP/1.1 307 Elsewhere\r\nLocation: /v1/other\r\nContent-Length: 0\r\n\r\n")
    async with calling(server) as provider:
        with pytest.raises(ProviderMisconfigured, match="another path"):
            await ask(provider)
        assert len(server.requests) == 1


@pytest.mark.parametrize("said", [OK + EVIL, CHUNKED + EVIL, OK + EVIL[:30], OK + EVIL + EVIL])
async def test_what_follows_an_answer_is_no_answer_to_the_next_call(said: bytes) -> None:
    server = Server(said, OK, OK)
    async with calling(server) as provider:
        assert [await ask(provider) for _ in range(3)] == ["hello"] * 3


async def test_what_comes_unasked_is_no_answer_to_the_next_call() -> None:
    server = Server(OK, OK)
    async with calling(server) as provider:
        await ask(provider)
        server.writers[0].write(EVIL)
        await settle()  # over the loopback what was written has arrived
        assert server.left == 0
        assert await ask(provider) == "hello"
        assert server.connections == 2


async def test_a_cancelled_call_ends_its_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n", OK)
    async with calling(server) as provider:
        task = asyncio.create_task(ask(provider))
        await until(lambda: len(server.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.left == 1)
        assert await ask(provider) == "hello"


async def test_leaving_a_stream_early_ends_its_connection() -> None:
    class Left(Exception):
        pass

    async def leave(_: Delta) -> None:
        raise Left

    event = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + event, OK)
    async with calling(server) as provider:
        with pytest.raises(Left):
            await provider.complete(CALL, leave)
        await until(lambda: server.left == 1)
        assert await ask(provider) == "hello"


async def test_an_idle_connection_is_closed_in_time() -> None:
    server = Server(OK, OK)
    async with calling(server, idle_seconds=0.1) as provider:
        await ask(provider)
        await until(lambda: server.left == 1)
        assert await ask(provider) == "hello"


async def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    server = Server(OK, OK)
    async with calling(server) as provider:
        await ask(provider)
        server.writers[0].close()
        await asyncio.sleep(0.2)
        assert await ask(provider) == "hello"
        assert server.connections == 2


async def test_a_server_is_read_from_as_fast_as_its_answer_is() -> None:
    event = b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % (b"x" * 1000)
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + event * 30_000)
    async with calling(server) as provider:
        waiting = asyncio.Event()

        async def stuck(_: Delta) -> None:
            waiting.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(provider.complete(CALL, stuck))
        await waiting.wait()
        await asyncio.sleep(0.3)
        unsent = server.writers[0].transport.get_write_buffer_size()
        assert unsent > 10_000_000, "what nobody reads stays with the server"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_server_that_takes_no_connection_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address):
            async with open_client(0.2) as client:
                bounds = replace(BOUNDS, connect=0.2)
                provider = provider_at(f"http://127.0.0.1:{address[1]}", client, bounds=bounds)
                with pytest.raises(ProviderTimeout) as caught:
                    await ask(provider)
    assert caught.value.metadata["bound"] == "connect"


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CertificateFolder(tmp_path, Authority(), "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    async with calling(Server(OK), context) as stranger:
        with pytest.raises(ProviderUnavailable, match="can't be reached"):
            await ask(stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    server = Server(OK, OK)
    async with calling(server, context) as provider:
        assert [await ask(provider), await ask(provider)] == ["hello"] * 2
        assert server.connections == 1


class Resetting(Server):
    """Resets the connection that is used again, `times` times in all, having read the request or not."""

    def __init__(self, times: int, *, first: bool = False, begun: bytes = b"") -> None:
        super().__init__()
        self._times = times
        self._first = first
        self._begun = begun

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for number in range(100):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if self._times and (number or self._first):
                    self._times -= 1
                    writer.write(self._begun)
                    await writer.drain()
                    await asyncio.sleep(0.05 if self._begun else 0)
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
                writer.write(OK)
        writer.close()


async def test_a_kept_connection_that_is_reset_is_replaced_once() -> None:
    server = Resetting(1)
    async with calling(server) as provider:
        assert [await ask(provider) for _ in range(3)] == ["hello"] * 3
    assert (server.connections, len(server.requests)) == (2, 4)


async def test_a_replaced_connection_is_a_new_one() -> None:
    server = Resetting(5)
    async with calling(server) as provider:
        await asyncio.gather(*[ask(provider) for _ in range(3)])
        assert await ask(provider) == "hello"
    assert (server.connections, len(server.requests)) == (4, 5)


@pytest.mark.parametrize(
    ("server", "calls"),
    [(lambda: Resetting(1, first=True), 1), (lambda: Resetting(1, begun=b"HTTP/1.1 200 OK\r\nX: "), 2)],
    ids=["a new connection", "an answer that had begun"],
)
async def test_what_may_have_been_answered_is_not_asked_again(server: Callable[[], Resetting], calls: int) -> None:
    resetting = server()
    async with calling(resetting) as provider:
        for _ in range(calls - 1):
            await ask(provider)
        with pytest.raises(ProviderUnavailable):
            await ask(provider)
    assert len(resetting.requests) == calls
