"""The watch of API keys beats fast while keys are in use, slowly while nobody asks about any."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from access.key_cache import KeyCache, KeyTimes
from access.key_client import HEARTBEAT_SECONDS, IDLE_HEARTBEAT_SECONDS, KeyClient
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1.access_service_pb2_grpc import AccessServiceServicer, add_AccessServiceServicer_to_server
from tests.unit.access.keys import Checker


class Watches(AccessServiceServicer):
    """Notes how often each watch is to beat, and beats."""

    def __init__(self) -> None:
        self.intervals: list[float] = []
        self.open = 0

    async def WatchAccess(self, request: pb.WatchAccessRequest, context: Any) -> AsyncIterator[pb.WatchAccessResponse]:  # type: ignore[override] # noqa: N802
        interval = request.heartbeat_interval.ToTimedelta().total_seconds()
        self.intervals.append(interval)
        self.open += 1
        try:
            while True:
                yield pb.WatchAccessResponse()
                await asyncio.sleep(interval)
        finally:
            self.open -= 1


@asynccontextmanager
async def following(cache: KeyCache, idle_after: float) -> AsyncIterator[Watches]:
    watches, server = Watches(), grpc.aio.server()
    add_AccessServiceServicer_to_server(watches, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    client = KeyClient(channel, idle_after_seconds=idle_after)
    # A stall is not what ends a watch.
    task = asyncio.create_task(client.follow(cache, KeyTimes(silence=60.0)))
    try:
        yield watches
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await channel.close()
        await server.stop(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_watch_that_nobody_needs_beats_slowly_until_a_key_is_asked_about() -> None:
    cache = KeyCache(Checker())
    async with following(cache, idle_after=0.3) as watches:
        await until(lambda: watches.intervals == [HEARTBEAT_SECONDS, IDLE_HEARTBEAT_SECONDS])
        await until(lambda: watches.open == 1)
        await asyncio.sleep(1.2)
        assert cache.watching, "slow is not silent"
        assert cache.known(b"any digest") is None
        await until(lambda: watches.intervals[2:] == [HEARTBEAT_SECONDS])


async def test_a_watch_that_is_needed_goes_on_as_it_is() -> None:
    cache = KeyCache(Checker())
    async with following(cache, idle_after=0.3) as watches:
        for _ in range(20):
            cache.known(b"any digest")
            await asyncio.sleep(0.05)
        assert watches.intervals == [HEARTBEAT_SECONDS]
        assert cache.watching
    assert not cache.watching


async def test_the_first_key_after_a_quiet_time_is_not_taken_on_an_old_word_of_the_watch() -> None:
    checker = Checker()
    cache = KeyCache(checker)
    async with following(cache, idle_after=0.1) as watches:
        await until(lambda: len(watches.intervals) == 1)
        key = checker.add()
        await cache.caller_of(key)
        await until(lambda: watches.intervals[-1] == IDLE_HEARTBEAT_SECONDS)
        await asyncio.sleep(KeyTimes().silence + 0.1)
        asked = len(checker.asked)
        await cache.caller_of(key)
        assert len(checker.asked) > asked
