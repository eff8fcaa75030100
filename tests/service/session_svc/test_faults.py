"""What session_svc does while Redis is killed, frozen, restarted, or made to forget its scripts."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import redis

from session_svc.redis_client import server, url
from tests.servers.stores import Choice, RedisServer
from tests.service.session_svc.replica import Replica, refused, replica, texts

pytestmark = pytest.mark.usefixtures("patient_with_stores")


@pytest.fixture
def own_redis(server_choice: Choice, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that this test may kill."""
    server = server_choice.own_redis(tmp_path)
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def svc(own_redis: RedisServer) -> AsyncIterator[Replica]:
    async with replica(own_redis.database_url(0)) as made:
        yield made


async def until_serving(svc: Replica, expected: bool) -> None:
    """Waits until the health is as expected."""
    async with asyncio.timeout(60):
        while await svc.serves() != expected:
            await asyncio.sleep(0.02)


async def test_committed_turns_survive_a_kill(svc: Replica, own_redis: RedisServer) -> None:
    for n in range(20):
        await svc.turn(text=str(n))
    running = await svc.begin()
    with redis.Redis.from_url(own_redis.database_url(0)) as client:
        # everysec: what is not synced yet may be lost. WAITAOF waits for what its own connection wrote, and all before.
        client.set("written", "last")
        client.execute_command("WAITAOF", 1, 0, 5000)
    own_redis.kill()
    await until_serving(svc, False)
    begin = asyncio.get_running_loop().time()
    with refused("PEER_UNAVAILABLE") as outcome:
        await svc.begin("s2")
    assert outcome.error.metadata == {"peer": "redis"}
    with refused("PEER_UNAVAILABLE"):
        await svc.commit(running)
    assert asyncio.get_running_loop().time() - begin < 30, "fails fast"
    own_redis.start()
    await until_serving(svc, True)
    assert (await svc.commit(running, "20")).turn_number == 21, "the lease is as durable as the turns"
    assert texts(await svc.begin()) == [str(n) for n in range(21)]


async def test_waiting_goes_on_over_a_restart(svc: Replica, own_redis: RedisServer) -> None:
    await svc.turn()
    running = await svc.begin()
    waiting = asyncio.create_task(svc.begin())
    await asyncio.sleep(0.2)
    own_redis.stop()
    own_redis.start()
    await until_serving(svc, True)
    await svc.commit(running)
    # It may have been told that Redis went away, but by that name.
    await asyncio.wait([waiting], timeout=50)
    with contextlib.nullcontext() if waiting.exception() is None else refused("PEER_UNAVAILABLE"):
        await waiting


@pytest.fixture
def soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that says nothing for 3 s is one that does not answer."""
    for module, name in ((server, "CONNECT_SECONDS"), (server, "REPLY_SECONDS"), (url, "STEP_SECONDS")):
        monkeypatch.setattr(module, name, 3.0)


async def test_a_frozen_redis_is_away(soon_given_up: None, svc: Replica, own_redis: RedisServer) -> None:
    pid = getattr(own_redis, "pid", None)
    if pid is None:
        pytest.skip("only an embedded server has a process that can be frozen")
    await svc.turn(text="before")
    running = await svc.begin()
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = asyncio.get_running_loop().time()
        with refused("PEER_UNAVAILABLE"):
            await svc.commit(running, "unknown")
        assert asyncio.get_running_loop().time() - begin < 30
        await until_serving(svc, False)
        begin = asyncio.get_running_loop().time()
        with refused("PEER_UNAVAILABLE"):
            await svc.begin("s2")
        assert asyncio.get_running_loop().time() - begin < 30
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_serving(svc, True)
    assert (await svc.commit(running, "unknown")).turn_number == 2, "whether it was stored or not, it is now, once"
    assert texts(await svc.begin()) == ["before", "unknown"]


async def test_a_redis_that_forgot_the_scripts_is_taught_them(svc: Replica, own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.database_url(0)) as client:
        for n in range(3):
            client.script_flush()
            begun = await svc.begin()
            client.script_flush()
            await svc.renew(begun)
            client.script_flush()
            assert (await svc.commit(begun, str(n))).turn_number == n + 1
    assert texts(await svc.begin()) == ["0", "1", "2"]


async def test_a_redis_that_is_not_there_at_the_start(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with replica(own_redis.database_url(0)) as svc:
        assert not await svc.serves()
        with refused("PEER_UNAVAILABLE"):
            await svc.begin()
        own_redis.start()
        await until_serving(svc, True)
        await svc.turn()


async def test_a_cut_connection_is_made_again_at_once(svc: Replica, own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.database_url(0)) as client:
        for n in range(10):
            begun = await svc.begin()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            assert (await svc.commit(begun, str(n))).turn_number == n + 1
            await asyncio.sleep(0.02)
    assert texts(await svc.begin()) == [str(n) for n in range(10)]


async def test_waiters_are_woken_after_the_wake_channel_broke(svc: Replica, own_redis: RedisServer) -> None:
    await svc.turn()
    running = await svc.begin()
    waiting = asyncio.create_task(svc.begin())
    await asyncio.sleep(0.1)
    with redis.Redis.from_url(own_redis.database_url(0)) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await svc.commit(running)  # nobody hears of it
    async with asyncio.timeout(50):  # less than the lease after which it looks again by itself
        await waiting


async def talk(svc: Replica, stop: asyncio.Event, acknowledged: list[str]) -> None:
    """Has one turn after the other; a commit whose outcome is not known is repeated until it is."""
    for n in itertools.count():
        if stop.is_set():
            return
        await asyncio.sleep(0.002)
        with contextlib.suppress(grpc.aio.AioRpcError):
            begun = await svc.begin(timeout=2)
            while True:
                try:
                    await svc.commit(begun, str(n))
                    acknowledged.append(str(n))
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.ABORTED:  # LEASE_LOST: nothing was stored
                        break
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)


async def test_acknowledged_turns_and_no_others_are_stored_however_often_redis_is_killed(
    own_redis: RedisServer,
) -> None:
    acknowledged: list[str] = []
    stop = asyncio.Event()
    async with replica(own_redis.database_url(0), lease=1) as svc:
        talking = asyncio.create_task(talk(svc, stop, acknowledged))
        for _ in range(4):
            with redis.Redis.from_url(own_redis.database_url(0)) as client:
                client.config_set("appendfsync", "always")
            await asyncio.sleep(1.2)
            own_redis.kill()
            await asyncio.to_thread(own_redis.start)
            before = len(acknowledged)
            async with asyncio.timeout(60):
                while len(acknowledged) == before:
                    await asyncio.sleep(0.02)
        stop.set()
        await talking
        assert await svc.said() == acknowledged
