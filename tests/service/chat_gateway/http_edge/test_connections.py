"""What clients do to connections: slow, oversized, half-done, unreadable."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.refused_requests import MAX_HEAD_BYTES
from chat_gateway.http_edge.wire.server import http_serving
from chat_gateway.model.turn import Delta
from servicekit.errors import StartupError
from tests.service.chat_gateway.http_edge.edge import STARTED, Edge, hanging, outcome, running_edge, whole

BODY = json.dumps({"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)


class Wire:
    """A connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, bytes]:
        """Status and body; the server closes after it."""
        everything = await asyncio.wait_for(self.reader.read(), 60)
        head, _, body = everything.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


@pytest.fixture
async def wire(edge: Edge) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    yield Wire(reader, writer)
    writer.close()


async def test_a_client_that_does_not_read_is_cut_off_and_its_turn_cancelled() -> None:
    sent = 0

    async def run(request, on_started, on_delta):
        nonlocal sent
        await on_started(STARTED)
        while True:
            await on_delta(Delta("x" * 10_000))
            sent += 10_000

    async with running_edge(HttpSettings(write_timeout=0.2, keep_alive_interval=0.05)) as edge:
        edge.turns.script = run
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port, limit=1024)
        writer.write(HEAD + BODY)
        await asyncio.wait_for(edge.turns.cancelled.wait(), 60)
        writer.close()
    assert sent < 50_000_000  # what sockets and their buffers hold, not what the model says


async def test_a_slow_reader_gets_everything() -> None:
    async def run(request, on_started, on_delta):
        await on_started(STARTED)
        for _ in range(300):
            await on_delta(Delta("x" * 10_000))
        return outcome()

    async with running_edge(HttpSettings(write_timeout=60.0)) as edge:
        edge.turns.script = run
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        got = b""
        async with edge.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for piece in answer.aiter_bytes(256 * 1024):
                got += piece
                await asyncio.sleep(0.005)
    assert got.count(b"x" * 10_000) == 300
    assert got.endswith(b"data: [DONE]\n\n")


async def test_a_body_that_never_ends_is_refused() -> None:
    async with running_edge(HttpSettings(body_timeout=0.1)) as edge:
        for target in (b"/v1/chat/completions", b"/v1/agents"):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(HEAD.replace(b"/v1/chat/completions", target) + BODY[:10])
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 504 ")
            assert b'"deadline_exceeded"' in await asyncio.wait_for(reader.readuntil(b"}}"), 60)
            writer.close()
        assert edge.turns.requests == []


async def test_a_request_too_many_is_refused_before_its_body_is_read() -> None:
    async with running_edge(HttpSettings(max_requests=1)) as edge:
        edge.turns.script = hanging()
        running = asyncio.create_task(edge.chat())
        await asyncio.wait_for(edge.turns.running.wait(), 60)
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(HEAD + BODY[:10])
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nx-should-retry: true\r\nretry-after: 1\r\n" in head
        assert b'"turn_queue_full"' in await asyncio.wait_for(reader.readuntil(b"}}"), 60)
        writer.close()
        assert (await edge.client.get("/livez")).status_code == 200
        assert len(edge.turns.requests) == 1
        running.cancel()
        await asyncio.wait_for(edge.turns.cancelled.wait(), 60)
        edge.turns.script = whole("Hello!")
        assert (await _once_let_in(edge)).status_code == 200


async def test_a_request_counts_while_its_body_arrives() -> None:
    async with running_edge(HttpSettings(max_requests=2)) as edge:
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(HEAD + BODY[:10])
            await writer.drain()
            writers.append(writer)
        async with asyncio.timeout(60):
            while (await edge.chat()).status_code != 429:
                await asyncio.sleep(0.01)
        writers[0].close()
        assert (await _once_let_in(edge)).status_code == 200
        assert [(await edge.chat()).status_code for _ in range(3)] == [200] * 3
        writers[1].close()


async def _once_let_in(edge: Edge) -> httpx.Response:
    async with asyncio.timeout(60):
        while (answer := await edge.chat()).status_code == 429:
            await asyncio.sleep(0.01)
    return answer


async def test_a_client_that_leaves_while_it_sends_leaves_nothing(edge: Edge, wire: Wire) -> None:
    wire.writer.write(HEAD + BODY[:10])
    await wire.writer.drain()
    wire.writer.close()
    assert (await edge.chat()).status_code == 200
    assert len(edge.turns.requests) == 1


async def test_a_drain_answers_a_request_whose_body_still_arrives() -> None:
    async with running_edge(drain_timeout=0.2) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(HEAD + BODY[:10])
        await writer.drain()
        assert (await edge.client.get("/livez")).status_code == 200  # the head was read before this request's
    status, body = await Wire(reader, writer).answer()
    assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
    assert edge.turns.requests == []
    writer.close()


async def test_headers_over_their_limit_are_refused(wire: Wire) -> None:
    wire.writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * (MAX_HEAD_BYTES + 1))
    status, body = await wire.answer()
    assert status == 431
    assert json.loads(body)["error"]["code"] == "malformed_body"


async def test_headers_that_take_too_long_are_refused() -> None:
    async with running_edge(head_timeout=0.5) as edge:
        for start in (b"", b"GET /livez HTTP/1.1\r\nhost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(start)
            status, _ = await Wire(reader, writer).answer()
            assert status == 408
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        for _ in range(2):  # a kept connection is timed by the head again, not by its age
            writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(15)
            await asyncio.sleep(0.7)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        status, _ = await Wire(reader, writer).answer()
        assert status == 408
        writer.close()


async def test_what_is_not_http_is_refused_in_json(wire: Wire) -> None:
    wire.writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    status, body = await wire.answer()
    assert (status, json.loads(body)["error"]["code"]) == (400, "malformed_body")


async def test_pipelined_requests_are_answered_in_order(edge: Edge, wire: Wire) -> None:
    plain = BODY.replace(b', "stream": true', b"")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r%d\r\ncontent-length: %d\r\n\r\n"
    for number in (1, 2):
        wire.writer.write(head % (number, len(plain)) + plain)
    wire.writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    everything = await asyncio.wait_for(wire.reader.read(), 60)
    assert everything.count(b"HTTP/1.1 200 OK") == 3
    assert everything.index(b"x-request-id: r1") < everything.index(b"x-request-id: r2")


async def test_a_taken_port_is_named(edge: Edge) -> None:
    with pytest.raises(StartupError, match=f"127.0.0.1:{edge.port}: address already in use"):
        async with http_serving(lambda *_: None, "127.0.0.1", edge.port, 1.0):
            pass


async def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(StartupError, match=r"cannot serve HTTP on no\.such\.host\.invalid:0"):
        async with http_serving(lambda *_: None, "no.such.host.invalid", 0, 1.0):
            pass


async def test_idle_connections_do_not_hold_a_drain() -> None:
    async with running_edge(drain_timeout=60.0) as edge:
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=60, trust_env=False)
        await client.get("/livez")
        _, never_used = await asyncio.open_connection("127.0.0.1", edge.port)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 30
    await client.aclose()
    never_used.close()


async def test_a_server_that_retires_closes_each_connection_after_its_answer() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            begun.set()
            await finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with (
        http_serving(app, "127.0.0.1", 0, 60.0) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False) as client,
    ):
        assert "connection" not in (await client.get("/")).headers
        server.retire()
        assert (await client.get("/")).headers["connection"] == "close"
        assert (await client.get("/")).status_code == 200, "new connections are still taken"
        slow = asyncio.create_task(client.get("/slow"))
        await asyncio.wait_for(begun.wait(), 60)
        server.stop_accepting()
        finish.set()
        assert (await slow).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await client.get("/")


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(edge: Edge) -> None:
    await edge.chat()
    tasks = len(asyncio.all_tasks())
    edge.turns.script = hanging()
    for cut in range(0, len(HEAD + BODY) + 1, 5):
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write((HEAD + BODY)[:cut] if cut < len(HEAD + BODY) - 5 else HEAD + BODY)
        await writer.drain()
        if cut % 2:
            await asyncio.sleep(0.002)
        writer.transport.abort()
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.01)
    edge.turns.script = whole("Hello!")
    assert (await edge.chat()).status_code == 200


PLAIN = BODY.replace(b', "stream": true', b"")
PLAIN_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"


async def test_a_client_that_leaves_with_more_requests_waiting_cancels_the_one_that_is_served(
    edge: Edge, wire: Wire
) -> None:
    edge.turns.script = hanging()
    for _ in range(2):
        wire.writer.write(PLAIN_HEAD % len(PLAIN) + b"\r\n" + PLAIN)
    await asyncio.wait_for(edge.turns.running.wait(), 60)
    await asyncio.sleep(0.05)
    wire.writer.transport.abort()
    await asyncio.wait_for(edge.turns.cancelled.wait(), 60)
    assert len(edge.turns.requests) == 1


async def test_a_client_that_leaves_after_a_body_that_filled_the_connection_is_noticed(edge: Edge, wire: Wire) -> None:
    edge.turns.script = hanging()
    # Longer than what is read before it is asked for: the connection is paused when the body's end arrives.
    body = PLAIN.replace(b'"Hi"', b'"%b"' % (b"x" * 300_000))
    wire.writer.write(PLAIN_HEAD % len(body) + b"\r\n" + body)
    await asyncio.wait_for(edge.turns.running.wait(), 60)
    wire.writer.transport.abort()
    await asyncio.wait_for(edge.turns.cancelled.wait(), 60)


async def test_a_kept_connection_is_closed_where_the_client_asks_for_it(edge: Edge, wire: Wire) -> None:
    wire.writer.write(PLAIN_HEAD % len(PLAIN) + b"\r\n" + PLAIN)
    first = await asyncio.wait_for(wire.reader.readuntil(b"}}}"), 60)
    assert b"connection: close" not in first
    assert b"\r\ndate: " in first
    wire.writer.write(PLAIN_HEAD % len(PLAIN) + b"connection: close\r\n\r\n" + PLAIN)
    everything = await asyncio.wait_for(wire.reader.read(), 60)
    assert everything.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in everything
