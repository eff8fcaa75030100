"""The link to Redis against a server that takes its time."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import hiredis
import pytest
import uvloop

from session_svc.redis_client import server as redis_server
from session_svc.redis_client import url as redis_url
from session_svc.redis_client.link import RedisUnavailable
from session_svc.redis_client.server import RedisLink
from session_svc.redis_client.url import Dial, parse_redis_url
from session_svc.wiring import open_redis
from tests.servers.certificates import Authority, CertificateFolder

REPLY_SECONDS = 0.4


@pytest.fixture(autouse=True)
def _short_bounds(patient_with_stores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "REPLY_SECONDS", REPLY_SECONDS)
    monkeypatch.setattr(redis_server, "WATCH_SECONDS", 0.02)


class SlowServer(asyncio.Protocol):
    """Answers one GET after the other, each after so many seconds, and everything else at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._free_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while command := self._reader.gets():
            slow = command[0] == b"GET"
            self._free_at = max(self._free_at, self._loop.time()) + (self._seconds if slow else 0)
            self._loop.call_at(
                self._free_at, self._transport.write, b"+PONG\r\n" if command[0] == b"PING" else b"+OK\r\n"
            )


@contextlib.asynccontextmanager
async def slow_server(seconds: float) -> AsyncIterator[RedisLink]:
    server = await asyncio.get_running_loop().create_server(lambda: SlowServer(seconds), "127.0.0.1", 0)
    dial = parse_redis_url(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, contextlib.aclosing(RedisLink(cast("Dial", dial)).start()) as link:
        yield link


async def test_each_call_has_the_bound_to_itself() -> None:
    async with slow_server(REPLY_SECONDS / 2) as link:
        replies = await asyncio.gather(*(link.send(("GET", "x")) for _ in range(5)))
        assert replies == [[b"OK"]] * 5
        assert link.generation == 1


async def test_a_server_that_does_not_answer_is_left() -> None:
    async with slow_server(60) as link:
        await link.ping()
        with pytest.raises(RedisUnavailable):
            await link.send(("GET", "x"))
        await link.ping()
        assert link.generation == 2


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_process_that_stood_still_reads_what_came_before_it_gives_up(run: Callable[[Any], None]) -> None:
    async def talk() -> None:
        async with slow_server(REPLY_SECONDS / 2) as link:
            await link.ping()
            asked = asyncio.ensure_future(link.send(("GET", "x")))
            await asyncio.sleep(0.05)
            time.sleep(2 * REPLY_SECONDS)  # noqa: ASYNC251  # this process, the server in it too, stands still
            assert await asked == [b"OK"]
            assert link.generation == 1

    run(talk())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_commands_go_over_what_redis_py_connected(
    scheme: str, run: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, bound in (
        (redis_server, "REPLY_SECONDS"),
        (redis_server, "CONNECT_SECONDS"),
        (redis_url, "STEP_SECONDS"),
    ):
        monkeypatch.setattr(module, bound, 30.0)  # nothing is slow here but, at times, the machine
    files = CertificateFolder(tmp_path / "tls", Authority(), "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.cert, files.key)

    async def talk() -> None:
        loop, path = asyncio.get_running_loop(), tmp_path / "redis.sock"
        if scheme == "unix":
            server, url = await loop.create_unix_server(lambda: SlowServer(0), str(path)), f"unix://{path}"
        else:
            context = tls if scheme == "rediss" else None
            server = await loop.create_server(lambda: SlowServer(0), "127.0.0.1", 0, ssl=context)
            url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, open_redis(url, 1) as ([link], _):
            sent = [link.send_in_order([("SET", "x", bytes(100_000))], [("PING",)]) for _ in range(50)]
            assert await asyncio.gather(*sent) == [[b"OK", b"PONG"]] * 50
            link.demoted()
            await link.ping()
            assert link.generation == 2

    run(talk())


class Written:
    """What redis-py connected: a transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False
        self.transport = self._writer = self

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """It has only one."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is open."""

    def _close(self) -> None:
        self.closed = True


async def test_a_call_that_is_alone_is_written_at_once_and_others_together() -> None:
    written = Written()

    async def dial() -> Any:
        return written

    async with contextlib.aclosing(RedisLink(dial).start()) as link:
        calls = [asyncio.create_task(link.send(("PING", str(number)))) for number in range(3)]
        while not written.writes:
            await asyncio.sleep(0)
        assert [data.count(b"PING") for data in written.writes] == [1]
        await asyncio.sleep(0)
        assert [data.count(b"PING") for data in written.writes] == [1, 2]
        link.data_received(b"+0\r\n+1\r\n+2\r\n")
        assert await asyncio.gather(*calls) == [[b"0"], [b"1"], [b"2"]]
        again = asyncio.create_task(link.send(("PING",)))
        await asyncio.sleep(0)
        assert len(written.writes) == 3
        link.abort()
        with pytest.raises(RedisUnavailable):
            await again


async def test_a_connection_is_closed_where_the_cancellation_of_its_keeper_was_swallowed() -> None:
    # As `asyncio.wait_for` does, in which redis-py sends its greeting, when that is through at the same moment.
    written, dialing = Written(), asyncio.Event()

    async def dial() -> Any:
        dialing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return written

    link = RedisLink(dial).start()
    await dialing.wait()
    async with asyncio.timeout(60):
        await link.aclose()
    assert written.closed


async def test_a_connection_is_closed_where_its_keeper_ends_by_itself() -> None:
    written = Written()

    async def dial() -> Any:
        return written

    link = RedisLink(dial).start()
    while not link.generation:
        await asyncio.sleep(0)
    for task in asyncio.all_tasks():  # as a loop does that ends
        if task.get_name() == "redis link":
            task.cancel()
            await asyncio.wait([task])
    assert written.closed
