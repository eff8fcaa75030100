"""What a client can do with the bytes of HTTP/1.1, against the edge on a socket: every hole ends in an answer."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.connections import RESERVED, ConnectionLimits
from chat_gateway.http_edge.wire.refused_requests import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED
from tests.service.chat_gateway.http_edge.edge import Edge, hanging, running_edge, whole

BODY = json.dumps({"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire:
    """A connection by hand, which the end of its test closes."""

    opened: ClassVar[list["Wire"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.opened.append(self)

    @classmethod
    async def open(cls, edge: Edge, source: str = "127.0.0.1") -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", edge.port, local_addr=(source, 0)))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)

    async def status(self) -> int:
        """The status of the next answer, whose body is read."""
        head = await self.head()
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await asyncio.wait_for(self.reader.readexactly(int(length)), 60)
        return int(head.split(b" ")[1])

    async def everything(self) -> bytes:
        """What is answered until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 60)

    async def is_closed(self) -> bool:
        try:
            return not await asyncio.wait_for(self.reader.read(1), 60)
        except ConnectionError:
            return True


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    yield
    for wire in Wire.opened:
        wire.writer.transport.abort()
    await asyncio.sleep(0)
    Wire.opened.clear()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


async def test_trailers_are_no_headers(edge: Edge) -> None:
    wire = await Wire.open(edge)
    trailers = b"X-User-ID: mallory\r\nX-Session-ID: other\r\nX-Project-ID: theirs\r\nIdempotency-Key: k\r\n\r\n"
    wire.send(HEAD + b"x-user-id: alice\r\nx-session-id: mine\r\n" + CHUNKED + trailers)
    assert await wire.status() == 200
    asked = edge.turns.requests[-1]
    assert (asked.user_id, asked.session_id, asked.project, asked.request_id) == ("alice", "mine", "default", "")
    wire.send(LIVEZ)
    assert await wire.status() == 200, "the connection goes on"


@pytest.mark.parametrize("trailer", [b"x: " + b"a" * 200_000, b"x: y\r\n" * 40_000, b"a" * 200_000])
async def test_trailers_are_bounded(edge: Edge, trailer: bytes) -> None:
    wire = await Wire.open(edge)
    wire.send(HEAD + CHUNKED + trailer)
    assert b"HTTP/1.1 431 " in await wire.everything()
    assert edge.turns.requests == []


@pytest.mark.parametrize(
    ("version", "coding"),
    [(b"1.0", b"chunked"), (b"1.1", b"gzip, chunked"), (b"2.0", b"chunked"), (b"0.9", b"chunked")],
)
async def test_a_body_that_a_proxy_may_read_differently_is_refused(edge: Edge, version: bytes, coding: bytes) -> None:
    wire = await Wire.open(edge)
    wire.send(HEAD.replace(b"1.1", version) + CHUNKED.replace(b"chunked", coding) + b"\r\n" + LIVEZ)
    answered = await wire.everything()
    assert STATUS.findall(answered) == [b"400"]
    assert edge.turns.requests == []


@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
async def test_another_version_of_http_is_refused(edge: Edge, version: bytes) -> None:
    wire = await Wire.open(edge)
    wire.send(LIVEZ.replace(b"1.1", version))
    assert STATUS.findall(await wire.everything()) == [b"400"]


async def test_a_stream_for_http_1_0_is_not_chunked(edge: Edge) -> None:
    wire = await Wire.open(edge)
    body = BODY[:-1] + b', "stream": true}'
    wire.send(HEAD.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    head, _, events = (await wire.everything()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert events.startswith(b"data: ")
    assert events.endswith(b"data: [DONE]\n\n")


async def test_chunk_extensions_are_bounded(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n1;x=" + b"a" * 200_000)
    assert b"HTTP/1.1 431 " in await wire.everything()


async def test_small_chunks_are_taken(edge: Edge) -> None:
    wire = await Wire.open(edge)
    body = BODY.replace(b"Hi", b"x" * 30_000)
    wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body))
    wire.send(b"0\r\n\r\n")
    assert await wire.status() == 200


async def test_a_body_that_does_not_come_once_answered_ends_the_connection() -> None:
    async with running_edge(HttpSettings(max_body_bytes=1024)) as edge:
        wires: list[Wire] = []
        for path in (b"/v1/chat/completions", b"/v1/agents"):
            for rest in (b"", b"x", b"3\r\nabc\r\n0\r\nX-Trailer: "):
                framing = b"transfer-encoding: chunked" if rest[:1] == b"3" else b"content-length: 4000"
                for _ in range(4):
                    wires.append(wire := await Wire.open(edge))
                    wire.send(b"PATCH %b HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n%b" % (path, framing, rest))
                    assert b"HTTP/1.1 4" in await wire.head()
        for wire in wires:
            await wire.everything()


async def test_a_body_that_comes_late_keeps_the_connection(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
    assert await wire.status() == 405
    await asyncio.sleep(0.05)
    wire.send(b"abcd" + LIVEZ)
    assert await wire.status() == 200


async def test_empty_lines_do_not_hold_a_connection(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(LIVEZ)
    assert await wire.status() == 200
    wire.send(b"\r\n" * 50 + LIVEZ)
    assert await wire.status() == 200
    other = await Wire.open(edge)
    other.send(b"\r\n" * MAX_HEAD_BYTES)
    assert b"HTTP/1.1 431 " in await other.everything()


@pytest.mark.parametrize("excess", [-2000, 1, 12_000])
@pytest.mark.parametrize("where", [b"/livez?%b", b"/livez HTTP/1.1\r\nx: %b"])
async def test_the_bound_of_a_head_is_the_same_whether_it_comes_in_one_piece(
    edge: Edge, where: bytes, excess: int
) -> None:
    """After a request on its connection, too."""
    target = where % (b"a" * (MAX_HEAD_BYTES + excess))
    request = b"GET " + target + (b"" if b"HTTP" in target else b" HTTP/1.1") + b"\r\nhost: x\r\n\r\n"
    for before in (b"", LIVEZ):
        wire = await Wire.open(edge)
        wire.send(before + request + LIVEZ[:-2] + b"connection: close\r\n\r\n")
        statuses = STATUS.findall(await wire.everything())
        assert statuses[bool(before) :] == ([b"431"] if excess > 0 else [b"200", b"200"])


async def test_bad_chunking_is_answered(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n")
    assert (await wire.everything()).startswith(b"HTTP/1.1 400 ")
    assert edge.turns.requests == []


@pytest.mark.parametrize("rest", [b"GET / nonsense\r\n\r\n", b"\x00" * 200_000, b"a" * 200_000])
async def test_what_can_not_be_read_is_refused_after_the_answer_before_it(edge: Edge, rest: bytes) -> None:
    wire = await Wire.open(edge)
    wire.send(WHOLE + rest)
    first, second = STATUS.findall(await wire.everything())
    assert first == b"200"
    assert second in (b"400", b"431")


async def test_a_broken_body_behind_another_request_is_refused_in_its_turn(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(WHOLE + HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n")
    assert STATUS.findall(await wire.everything()) == [b"200", b"400"]
    assert len(edge.turns.requests) == 1


async def test_pipelined_requests_of_any_length_are_answered(edge: Edge) -> None:
    wire = await Wire.open(edge)
    long = BODY.replace(b"Hi", b"x" * 60_000)
    wire.send((HEAD + b"content-length: %d\r\n\r\n%b" % (len(long), long)) * 8)
    assert [await wire.status() for _ in range(8)] == [200] * 8


async def test_pipelined_requests_are_bounded_in_number(edge: Edge) -> None:
    edge.turns.script = hanging()
    wire = await Wire.open(edge)
    wire.send(WHOLE)
    await asyncio.wait_for(edge.turns.running.wait(), 60)
    wire.send(LIVEZ * 5_000)
    await asyncio.sleep(0.2)
    edge.turns.script = whole("x")
    other = await Wire.open(edge)
    other.send(WHOLE + LIVEZ * 5_000)
    assert STATUS.findall(await other.everything()) == [b"200"] * (MAX_PIPELINED + 1) + [b"400"]


async def test_headers_are_bounded_in_number(edge: Edge) -> None:
    wire = await Wire.open(edge)
    wire.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * (MAX_HEADERS + 1) + b"\r\n")
    assert (await wire.everything()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.2, h2c"])
async def test_an_upgrade_is_ignored(edge: Edge, upgrade: bytes) -> None:
    wire = await Wire.open(edge)
    asks = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AAMAAABk\r\n" % upgrade
    for number, framing in enumerate((b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY), CHUNKED + b"\r\n")):
        wire.send(HEAD + asks + framing)
        assert await wire.status() == 200
        assert len(edge.turns.requests) == number + 1
    wire.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n" + asks + b"\r\n" + LIVEZ)
    assert [await wire.status() for _ in range(2)] == [200, 200]
    split = HEAD + asks + b"content-length: %d\r\n\r\n" % len(BODY)
    wire.send(split)
    await asyncio.sleep(0.05)
    wire.send(BODY)
    assert await wire.status() == 200
    wire.send(split + b"x" * len(BODY))
    assert await wire.status() == 400, "the body is its own request's"


async def test_connections_of_a_source_are_bounded_and_others_get_in() -> None:
    async with running_edge(limits=ConnectionLimits(total=20, per_source=6)) as edge:
        edge.turns.script = hanging()
        busy = [await Wire.open(edge, "127.0.0.2") for _ in range(6)]
        for wire in busy:
            wire.send(WHOLE)
        async with asyncio.timeout(60):
            while len(edge.turns.requests) < 6:
                await asyncio.sleep(0.01)
        over = await Wire.open(edge, "127.0.0.2")
        over.send(WHOLE)
        refused = await over.everything()
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in refused
        health = await Wire.open(edge, "127.0.0.2")
        health.send(LIVEZ)
        assert await health.status() == 200, "health is answered whoever asks"
        edge.turns.script = whole("Hello!")
        other = await Wire.open(edge, "127.0.0.3")
        other.send(WHOLE)
        assert await other.status() == 200


async def test_a_new_connection_takes_the_place_of_an_idle_one() -> None:
    async with running_edge(limits=ConnectionLimits(total=8, per_source=8)) as edge:
        kept = await Wire.open(edge, "127.0.0.2")
        kept.send(LIVEZ)
        assert await kept.status() == 200
        idle = [await Wire.open(edge, "127.0.0.3") for _ in range(40)]
        bystander = await Wire.open(edge, "127.0.0.4")
        bystander.send(WHOLE)
        assert await bystander.status() == 200
        for wire in idle[:30]:
            assert await wire.is_closed()
        kept.send(LIVEZ)
        assert await kept.status() == 200, "a flood takes its own places first"


async def test_connections_of_all_sources_together_are_bounded() -> None:
    async with running_edge(limits=ConnectionLimits(total=6, per_source=4)) as edge:
        edge.turns.script = hanging()
        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in range(3):
                (await Wire.open(edge, source)).send(WHOLE)
        async with asyncio.timeout(60):
            while len(edge.turns.requests) < 6:
                await asyncio.sleep(0.01)
        over = await Wire.open(edge, "127.0.0.4")
        over.send(WHOLE)
        assert (await over.everything()).startswith(b"HTTP/1.1 503 ")


async def test_health_is_answered_while_everything_is_taken() -> None:
    async with running_edge(limits=ConnectionLimits(total=4, per_source=4)) as edge:
        edge.turns.script = hanging()
        busy = [await Wire.open(edge) for _ in range(4)]
        for wire in busy:
            wire.send(WHOLE)
        async with asyncio.timeout(60):
            while len(edge.turns.requests) < 4:
                await asyncio.sleep(0.01)
        for _ in range(3 * RESERVED):
            await Wire.open(edge)  # and says nothing
        for _ in range(5):
            probe = await Wire.open(edge)
            probe.send(LIVEZ.replace(b"livez", b"readyz"))
            assert await probe.status() == 200


@pytest.mark.parametrize("path", [b"/docs/swagger-ui-bundle.js", b"/docs"])
async def test_a_client_that_does_not_read_is_cut_off_whatever_it_asked_for(path: bytes) -> None:
    async with running_edge(HttpSettings(write_timeout=1.0)) as edge:
        wires = []
        for _ in range(4):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(("127.0.0.1", edge.port))
            reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
            wires.append(Wire(reader, writer))
            requests = 8 if path.endswith(b"js") else MAX_PIPELINED
            writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path * requests)
        if path.endswith(b"js"):  # more than the buffers of both sides hold
            async with asyncio.timeout(60):
                while edge.server.connections > 1:
                    assert (await edge.client.get("/livez")).status_code == 200
                    await asyncio.sleep(0.1)
        else:  # what they do hold is answered
            assert [await wires[0].status() for _ in range(MAX_PIPELINED)] == [200] * MAX_PIPELINED


@pytest.mark.parametrize(
    ("line", "hosts", "right"),
    [
        (b"GET /livez HTTP/1.1", (), 400),
        (b"GET /livez HTTP/1.0", (), 200),
        (b"GET /livez HTTP/1.1", (b"x", b"x"), 400),
        (b"GET /livez HTTP/1.1", (b"x", b"y"), 400),
        (b"GET /livez HTTP/1.0", (b"x", b"y"), 400),
        (b"GET /livez HTTP/1.1", (b"",), 200),
        (b"GET /livez HTTP/1.1", (b"x.example:8080",), 200),
        (b"GET /livez HTTP/1.1", (b"[::1]:8080",), 200),
        (b"GET /livez HTTP/1.1", (b"x y",), 400),
        (b"GET /livez HTTP/1.1", (b"x/y",), 400),
        (b"GET /livez HTTP/1.1", (b"x@y",), 400),
        (b"GET /livez HTTP/1.1", (b"x:80:80",), 400),
        (b"GET /livez HTTP/1.1", (b"x, y/",), 400),
        (b"GET http://x/livez HTTP/1.1", (b"x",), 200),
        (b"GET http://X:80/livez HTTP/1.1", (b"x",), 200),
        (b"GET http://y/livez HTTP/1.1", (b"x",), 400),
        (b"GET http://x@y/livez HTTP/1.1", (b"y",), 400),
        (b"GET ftp://x/livez HTTP/1.1", (b"x",), 400),
        (b"GET http:///livez HTTP/1.1", (b"",), 400),
        (b"GET x:80 HTTP/1.1", (b"x",), 400),
        (b"GET livez HTTP/1.1", (b"x",), 400),
        (b"GET * HTTP/1.1", (b"x",), 400),
        (b"GET /livez#a HTTP/1.1", (b"x",), 400),
    ],
)
async def test_a_request_says_once_whom_it_is_for(
    line: bytes, hosts: tuple[bytes, ...], right: int, edge: Edge
) -> None:
    wire = await Wire.open(edge)
    wire.send(line + b"\r\n" + b"".join(b"Host: %b\r\n" % host for host in hosts) + b"\r\n")
    assert int((await wire.head()).split(b" ")[1]) == right
