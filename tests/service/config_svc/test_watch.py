"""WatchAgentConfigs over gRPC: order, resumption, held-open transactions, ends."""

import asyncio
import contextlib
import time
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy.exc import DBAPIError

from config_svc.model.change import ChangeType
from config_svc.model.spec_json import EncodedAgent
from config_svc.postgres.store import PostgresStore
from config_svc.postgres.transaction import PostgresTransaction
from parley.config.v1 import access_service_pb2 as access_pb
from parley.config.v1 import agent_config_service_pb2 as pb
from servicekit.channels import open_channel
from servicekit.rpc_status import from_rpc_error
from tests.servers.stores import libpq_url
from tests.service.config_svc.conftest import Running, agent, publish, running


async def create(service: Running, agent_id: str) -> None:
    await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent(agent_id)))


def watch_of(service: Running, **fields: Any) -> Any:
    return service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest(**fields))


async def start(service: Running, **fields: Any) -> tuple[Any, str]:
    """A watch that has begun, and its first cursor."""
    watch = watch_of(service, **fields)
    first = await asyncio.wait_for(watch.read(), 60)
    assert first.change_type == pb.CHANGE_TYPE_UNSPECIFIED
    return watch, first.cursor


async def next_ids(watch: Any, count: int) -> list[str]:
    return [(await asyncio.wait_for(watch.read(), 60)).agent_config.id for _ in range(count)]


async def end_of(watch: Any) -> str:
    """The reason that a watch ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(60):
            while True:
                await watch.read()
    return from_rpc_error(caught.value).reason


async def test_a_held_open_change_comes_before_the_later_one(service: Running, database_url: str) -> None:
    watch, _ = await start(service)
    await create(service, "before")
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as held:
        await held.execute(
            "INSERT INTO agent_config_changes (type, agent_config, time) SELECT 1, agent_config || "
            "jsonb_build_object('id', 'held'), time FROM agent_config_changes"
        )
        later = asyncio.create_task(create(service, "later"))
        await asyncio.sleep(0.3)
        assert not later.done(), "it waits for its turn instead of overtaking"
        await held.commit()
    await later
    assert await next_ids(watch, 3) == ["before", "held", "later"]
    watch.cancel()


async def test_a_rolled_back_change_leaves_no_gap(service: Running, database_url: str) -> None:
    watch, _ = await start(service)
    await create(service, "before")
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as held:
        await held.execute("INSERT INTO agent_config_changes (type, agent_config, time) VALUES (1, '{}', now())")
        await held.rollback()
    await create(service, "later")
    assert await next_ids(watch, 2) == ["before", "later"]
    watch.cancel()


async def test_a_strangers_long_transaction_delays_nothing(service: Running, database_url: str) -> None:
    watch, _ = await start(service)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as stranger:
        await stranger.execute("CREATE TABLE something (x int)")
        await stranger.execute("SELECT pg_current_xact_id()")
        begun = time.monotonic()
        await create(service, "a")
        assert await next_ids(watch, 1) == ["a"]
        assert time.monotonic() - begun < 14, "less than any bound of ours would have let pass"
        await stranger.rollback()
    watch.cancel()


async def test_a_writer_that_stands_still_is_ended(service: Running, database_url: str) -> None:
    """A paused process must not hold the feed's lock for ever: the server ends its transaction."""
    store = PostgresStore(database_url, answer_seconds=4)
    await create(service, "a")
    connection = await store._engine.connect()
    try:
        transaction = PostgresTransaction(connection)
        found = await transaction.live("default", "a")
        assert found is not None
        await transaction.announce(ChangeType.UPDATED, EncodedAgent.of(found), found.update_time)
        await create(service, "b")
        with pytest.raises(DBAPIError):
            await connection.commit()
    finally:
        await connection.invalidate()
        await connection.close()
        await store.close()


async def test_lost_notifications_are_survived(service: Running, database_url: str) -> None:
    watch, _ = await start(service)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "CREATE OR REPLACE FUNCTION number_agent_config_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "NEW.sequence := nextval('agent_config_changes_sequence'); RETURN NEW; END $$"
        )
    await create(service, "a")
    assert await next_ids(watch, 1) == ["a"]
    watch.cancel()


async def test_a_watch_resumes_on_another_replica(service: Running, database_url: str) -> None:
    watch, cursor = await start(service)
    await create(service, "a")
    middle = (await watch.read()).cursor
    await create(service, "b")
    async with running(database_url) as other:
        resumed, _ = await start(other, cursor=cursor)
        assert await next_ids(resumed, 2) == ["a", "b"]
        late, _ = await start(other, cursor=middle)
        await create(service, "c")
        assert await next_ids(late, 2) == ["b", "c"]
        assert await next_ids(resumed, 1) == ["c"]
        resumed.cancel()
        late.cancel()
    watch.cancel()


async def test_projects_are_watched_apart(service: Running) -> None:
    await service.access.CreateProject(access_pb.CreateProjectRequest(project=access_pb.Project(id="mine")))
    watch, _ = await start(service, project="mine", heartbeat_interval=Duration(seconds=60))
    await create(service, "theirs")
    await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(project="mine", agent_config=agent("ours")))
    assert await next_ids(watch, 1) == ["ours"]
    watch.cancel()


async def test_a_drain_ends_watches_at_once(database_url: str) -> None:
    async with contextlib.AsyncExitStack() as server:
        service = await server.enter_async_context(running(database_url, drain_timeout=60))
        async with open_channel(f"127.0.0.1:{service.port}") as channel:
            watch, _ = await start(Running(service.port, channel))
            ended = asyncio.create_task(end_of(watch))
            await asyncio.sleep(0)
            begun = time.monotonic()
            await server.aclose()
            assert time.monotonic() - begun < 30, "the grace of 60 s was not needed"
            assert await ended == "DRAINING"


async def test_a_cancelled_watch_leaves_nothing_behind(service: Running) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(20):
        watch, _ = await start(service)
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch.read()
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.02)


async def test_a_slow_watcher_is_cut_off(database_url: str) -> None:
    async with running(database_url, watch_buffer=5) as service, contextlib.AsyncExitStack() as stack:
        await service.templates.PublishTemplate(publish())
        narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
        channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{service.port}", options=narrow))
        watch, cursor = await start(Running(service.port, channel))
        big = agent("big", instructions="x" * 60_000)
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=big))
        for number in range(60):  # more than the connection takes without being read
            big.display_name = str(number)
            await service.agents.UpdateAgentConfig(pb.UpdateAgentConfigRequest(agent_config=big))
        await asyncio.sleep(0.2)
        assert await end_of(watch) == "WATCHER_TOO_SLOW"
        again, _ = await start(service, cursor=cursor)
        assert len(await next_ids(again, 61)) == 61
        again.cancel()


async def test_what_is_watched_converges_to_what_is_stored(service: Running) -> None:
    """Many writers at once: replaying the watch gives the stored revisions, each seen once, in order."""
    watch, _ = await start(service)
    ids = [f"a{number}" for number in range(5)]
    for one in ids:
        await create(service, one)

    async def write(one: str) -> None:
        for number in range(6):
            change = agent(one, display_name=f"{one} {number}")
            await service.agents.UpdateAgentConfig(pb.UpdateAgentConfigRequest(agent_config=change))

    await asyncio.gather(*(write(one) for one in ids))
    seen: dict[str, list[int]] = {one: [] for one in ids}
    for _ in range(35):
        config = (await asyncio.wait_for(watch.read(), 60)).agent_config
        seen[config.id].append(config.revision)
    assert seen == {one: list(range(1, 8)) for one in ids}
    watch.cancel()


async def test_a_watch_ends_with_its_project_on_every_replica(service: Running, database_url: str) -> None:
    name = access_pb.Project(id="brief")

    async def made() -> None:
        await service.access.CreateProject(access_pb.CreateProjectRequest(project=name))
        for number in range(3):
            new = pb.CreateAgentConfigRequest(project="brief", agent_config=agent(f"a{number}"))
            await service.agents.CreateAgentConfig(new)

    await made()
    async with running(database_url) as other:
        watches = [(await start(one, project="brief"))[0] for one in (service, other, other)]
        everything, _ = await start(other)
        bystander, _ = await start(other, project="default")
        _, cursor = await start(service, project="brief")
        begun = time.monotonic()
        await service.access.DeleteProject(access_pb.DeleteProjectRequest(id="brief"))
        for watch in watches:
            assert await next_ids(watch, 3) == ["a0", "a1", "a2"], "what it deleted is sent before the end"
            assert await end_of(watch) == "PROJECT_NOT_FOUND"
        assert time.monotonic() - begun < 30
        assert await end_of(watch_of(service, project="brief", cursor=cursor)) == "PROJECT_NOT_FOUND"
        await made()
        assert await next_ids(everything, 6) == ["a0", "a1", "a2", "a0", "a1", "a2"]
        again, _ = await start(other, project="brief")
        await create(service, "later")
        assert await next_ids(bystander, 1) == ["later"]
        for watch in (everything, bystander, again):
            watch.cancel()


async def test_a_watch_of_a_project_that_is_not_there(service: Running) -> None:
    for project in ("nowhere", "No project"):
        assert await end_of(watch_of(service, project=project)) == "PROJECT_NOT_FOUND"
