"""What running turns come to when Redis is emptied, full, closed to new connections, or changes its password."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from prometheus_client import CollectorRegistry

from session_svc.edge.turn_servicer import TurnServicer, make_streams
from session_svc.metrics import Metrics
from session_svc.wiring import RedisHealth, open_redis
from tests.servers.stores import Choice, RedisServer
from tests.service.session_svc.replica import Replica, refused, replica, texts

pytestmark = pytest.mark.usefixtures("patient_with_stores")


@pytest.fixture(scope="module")
def server(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis whose settings these tests change; each of them puts them back."""
    folder: Path = tmp_path_factory.mktemp("emptied")
    made = server_choice.own_redis(folder)
    made.start()
    yield made
    made.remove()


@pytest.fixture
def client(server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(server.database_url(0)) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
async def svc(server: RedisServer, client: "redis.Redis") -> AsyncIterator[Replica]:
    async with replica(server.database_url(0)) as made:
        yield made


async def until_answered(svc: Replica, session: str) -> Any:
    """Begins a turn as soon as one begins."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await svc.begin(session)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("command", ["FLUSHALL", "SWAPDB 0 9"])
async def test_a_turn_that_runs_while_redis_is_emptied_ends_by_name_and_is_not_stored(
    svc: Replica, client: "redis.Redis", command: str
) -> None:
    await svc.turn(text="before")
    running, first = await svc.begin(), await svc.begin("s2")
    client.execute_command(*command.split())
    for begun in (running, first):
        with refused("LEASE_LOST"):
            await svc.renew(begun)
        with refused("LEASE_LOST"):
            await svc.commit(begun, "during")
        await svc.abort(begun)
    with refused("SESSION_NOT_FOUND"):
        await svc.said()
    assert not client.keys("{default:*"), "nothing of a turn is left"
    after = await svc.begin()
    assert after.created
    assert texts(after) == []
    assert (await svc.commit(after, "after")).turn_number == 1
    assert after.lease.token > running.lease.token, "a holder of before is not taken for one of now"
    with refused("LEASE_LOST"):
        await svc.commit(running, "late")
    assert await svc.said() == ["after"]


async def test_a_turn_for_which_redis_has_no_memory_is_refused_by_name_and_can_be_repeated(
    svc: Replica, client: "redis.Redis"
) -> None:
    running = await svc.begin()
    client.config_set("maxmemory", 1)
    try:
        with refused("PEER_UNAVAILABLE"):
            await svc.commit(running, "one")
        with refused("PEER_UNAVAILABLE"):
            await svc.begin("s2")
    finally:
        client.config_set("maxmemory", 0)
    assert (await svc.commit(running, "one")).turn_number == 1
    assert await svc.said() == ["one"]
    assert (await svc.begin("s2")).created


async def test_a_redis_that_takes_no_more_connections_serves_those_that_it_has(
    svc: Replica, client: "redis.Redis", server: RedisServer
) -> None:
    most = client.config_get("maxclients")["maxclients"]
    running = await svc.begin()
    client.config_set("maxclients", 1)
    try:
        assert (await svc.commit(running, "one")).turn_number == 1, "its connections are kept"
        client.client_kill_filter(_type="normal", skipme=True)
        with refused("PEER_UNAVAILABLE"):
            await svc.begin()
    finally:
        client.config_set("maxclients", most)
    assert texts(await until_answered(svc, "s1")) == ["one"]


async def test_a_password_that_is_changed_is_refused_by_name_until_it_is_right_again(
    svc: Replica, client: "redis.Redis"
) -> None:
    await svc.turn(text="one")
    running = await svc.begin()
    password = client.config_get("requirepass")["requirepass"]
    client.config_set("requirepass", "another")
    try:
        client.client_kill_filter(_type="normal", skipme=True)
        with refused("PEER_UNAVAILABLE"):
            await svc.commit(running, "two")
    finally:
        client.config_set("requirepass", password)
    await until_answered(svc, "s2")
    assert (await svc.commit(running, "two")).turn_number == 2


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("maxclients", "1", "max number of clients"), ("requirepass", "another", "invalid username")],
)
async def test_a_redis_that_refuses_connections_is_named_with_its_reason(
    client: "redis.Redis", server: RedisServer, setting: str, value: str, said: str
) -> None:
    before = client.config_get(setting)[setting]
    async with open_redis(server.database_url(0), 1) as ([link], _):
        streams = make_streams(TurnServicer(None, None, None, None, None, None))  # type: ignore[arg-type]
        health = RedisHealth(link, Metrics(CollectorRegistry()), streams)
        assert await health.probe()
        client.config_set(setting, value)
        try:
            client.client_kill_filter(_type="normal", skipme=True)
            async with asyncio.timeout(60):
                while said not in str((await health.readiness())["redis"]):
                    await health.probe()
                    await asyncio.sleep(0.02)
        finally:
            client.config_set(setting, before)
        async with asyncio.timeout(60):
            while not await health.probe():
                await asyncio.sleep(0.02)
