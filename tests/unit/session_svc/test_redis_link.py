"""The link to Redis against a server that takes its time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from session_svc.redis_client import connection as redis_connection
from session_svc.redis_client.address import RedisAddress
from session_svc.redis_client.connection import Connection
from session_svc.redis_client.link import RedisUnavailable
from session_svc.redis_client.server import RedisLink

REPLY_SECONDS = 0.4


@pytest.fixture(autouse=True)
def _short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "REPLY_SECONDS", REPLY_SECONDS)
    monkeypatch.setattr(redis_connection, "WATCH_SECONDS", 0.02)


class SlowServer(asyncio.Protocol):
    """Answers the greeting of a connection at once, then one command after the other, each after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._greeting = 2
        self._free_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"*")):
            takes = 0.0 if self._greeting > 0 else self._seconds
            self._greeting -= 1
            self._free_at = max(self._free_at, self._loop.time()) + takes
            self._loop.call_at(self._free_at, self._transport.write, b"+PONG\r\n")


@contextlib.asynccontextmanager
async def slow_server(seconds: float) -> AsyncIterator[RedisLink]:
    server = await asyncio.get_running_loop().create_server(lambda: SlowServer(seconds), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, RedisLink(RedisAddress.parse(f"redis://127.0.0.1:{port}")).open() as link:
        yield link


async def test_each_call_has_the_bound_to_itself() -> None:
    async with slow_server(REPLY_SECONDS / 2) as link:
        replies = await asyncio.gather(*(link.send(("PING",)) for _ in range(5)))
        assert replies == [[b"PONG"]] * 5
        assert link.generation == 1


async def test_a_server_that_does_not_answer_is_left() -> None:
    async with slow_server(60) as link:
        with pytest.raises(RedisUnavailable):
            await link.send(("PING",))


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Nothing is open."""


async def test_a_call_that_is_alone_is_written_at_once_and_others_together() -> None:
    connection, written = Connection(lambda: None), Written()
    connection.connection_made(cast("asyncio.Transport", written))
    calls = [asyncio.create_task(connection.send([("PING", str(number))])) for number in range(3)]
    await asyncio.sleep(0)
    assert [data.count(b"PING") for data in written.writes] == [1]
    await asyncio.sleep(0)
    assert [data.count(b"PING") for data in written.writes] == [1, 2]
    connection.data_received(b"+0\r\n+1\r\n+2\r\n")
    assert await asyncio.gather(*calls) == [[b"0"], [b"1"], [b"2"]]
    again = asyncio.create_task(connection.send([("PING",)]))
    await asyncio.sleep(0)
    assert len(written.writes) == 3
    connection.break_off()
    with pytest.raises(RedisUnavailable):
        await again
