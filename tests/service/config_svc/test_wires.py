"""config_svc whose wire to PostgreSQL breaks, and whose database is another one."""

import asyncio
import contextlib
import gc
from typing import Any

import grpc
import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from config_svc.postgres.migrate import migrate
from config_svc.postgres.store import PostgresStore
from parley.config.v1 import agent_config_service_pb2 as pb
from servicekit.errors import Unavailable
from servicekit.rpc_status import from_rpc_error
from tests.servers.ports import free_port
from tests.servers.silent_proxy import Fault, Proxy
from tests.servers.stores import PostgresServer, libpq_url
from tests.service.config_svc.conftest import agent, publish, running

FAULTS: tuple[Fault, ...] = ("silent", "no requests", "no replies", "slow", "reset")


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_cut_off_in_any_phase_leaves_nothing(database_url: str, fault: Fault) -> None:
    async def cut_off(messages: int) -> None:
        wire = Proxy(database_url)
        wire.freeze_after(messages, fault)
        store = PostgresStore(await wire.start(), answer_seconds=0.5)
        with contextlib.suppress(Unavailable):
            await store.templates("", 1)
        with contextlib.suppress(Unavailable):
            async with store.tail() as tail:
                await tail.position()
        await store.close()
        assert not store._abandoned
        wire.thaw()
        async with asyncio.timeout(30):  # less than PostgreSQL's own bound
            while wire.connections:
                await asyncio.sleep(0.05)
        await wire.close()

    gc.disable()  # nothing is left to it
    try:
        await asyncio.gather(*(cut_off(messages) for messages in range(0, 16, 1 if fault == "silent" else 3)))
    finally:
        gc.enable()
    gc.collect()


async def test_a_commit_whose_answer_is_lost_is_not_repeated(database_url: str) -> None:
    wire = Proxy(database_url)
    store = PostgresStore(await wire.start(), answer_seconds=20, pool_size=1)
    began = 0

    async def work(transaction: Any) -> None:
        nonlocal began
        began += 1
        await transaction._connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS lost (n int)")
        await transaction._connection.exec_driver_sql("INSERT INTO lost VALUES (1)")
        wire.freeze_after(1, "reset")

    await store.templates("", 1)
    with pytest.raises(Unavailable):
        await store.transact(work)
    assert began == 1
    wire.thaw()
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as admin:
        found = await (await admin.execute("SELECT count(*) FROM lost")).fetchone()
    assert found == (1,)
    await store.close()
    await wire.close()


async def test_a_database_that_is_dropped_and_made_again_is_another_one(
    postgres_server: PostgresServer, database_url: str
) -> None:
    """Agents are gone, and a cursor of the old one is refused instead of being followed into the new one."""
    name, port = make_url(database_url).database, free_port()
    admin_url = libpq_url(postgres_server.database_url("postgres"))
    async with running(database_url, metrics_port=port) as service:

        async def refused(said: str) -> None:
            answer = ""
            async with asyncio.timeout(60), httpx.AsyncClient(timeout=60, trust_env=False) as client:
                while said not in answer:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id="a"))
                    assert from_rpc_error(caught.value).reason == "PEER_UNAVAILABLE"
                    answer = str((await client.get(f"http://127.0.0.1:{port}/readyz")).json())

        await service.templates.PublishTemplate(publish())
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("a")))
        cursor = (await service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest()).read()).cursor
        async with await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as admin:
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
            await refused("does not exist")
            await admin.execute(f'CREATE DATABASE "{name}"'.encode())
        await refused('relation "')
        await asyncio.to_thread(migrate, database_url)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await service.templates.PublishTemplate(publish())
                    watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest())
                    await watch.read()
                    break
                await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest(cursor=cursor)).read()
        assert from_rpc_error(caught.value).reason == "CURSOR_TOO_OLD"
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("b")))
        async with asyncio.timeout(60):
            while (await watch.read()).agent_config.id != "b":
                pass
        watch.cancel()


SERVER_FAULTS = {
    "53100": "could not extend file: No space left on device",
    "53200": "out of memory",
    "53300": "too many connections",
    "58030": "could not read block 0: Input/output error",
    "XX001": "invalid page in block 0",
    "40P01": "deadlock detected",
    "55P03": "could not obtain lock",
}


async def test_a_server_that_cannot_write_is_unavailable_for_writes_only(database_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin,
        running(database_url) as service,
    ):
        await service.templates.PublishTemplate(publish())
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("a")))
        for state, said in SERVER_FAULTS.items():
            fail = f"BEGIN RAISE EXCEPTION '{said}' USING ERRCODE = '{state}'; END"
            await admin.execute(
                f"CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $${fail}$$;"
                "CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON agent_configs EXECUTE FUNCTION fail()".encode()
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("b")))
            error = from_rpc_error(caught.value)
            assert (state, error.reason, str(error)) == (state, "PEER_UNAVAILABLE", "postgresql is unavailable")
            await service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id="a"))
        await admin.execute(b"DROP TRIGGER fail ON agent_configs")
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("b")))


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_formats_are_those_of_the_driver_whatever_a_database_has(database_url: str, by_transaction: bool) -> None:
    other = {
        "DateStyle": "German",
        "bytea_output": "escape",
        "standard_conforming_strings": "off",
        "client_encoding": "LATIN1",
        "statement_timeout": "40000",
    }
    with psycopg.connect(libpq_url(database_url), autocommit=True) as admin:
        for name, value in other.items():
            admin.execute(f'ALTER DATABASE "{make_url(database_url).database}" SET {name} = {value}'.encode())
    store = PostgresStore(database_url, answer_seconds=20, by_transaction=by_transaction)
    asked = "SELECT " + ", ".join(f"current_setting('{name}')" for name in other)
    found = await store.run_sync(lambda connection: connection.exec_driver_sql(asked).one())
    assert tuple(found) == ("ISO, DMY", "hex", "on", "UTF8", "20s")
    await store.close()


async def test_a_transaction_that_fails_leaves_nothing(database_url: str) -> None:
    store = PostgresStore(database_url, answer_seconds=20)

    async def work(transaction: Any) -> None:
        await transaction._connection.exec_driver_sql("CREATE TABLE half (n int)")
        raise Unavailable("anybody")

    with pytest.raises(Unavailable):
        await store.transact(work)
    asked = "SELECT to_regclass('half')"
    assert await store.run_sync(lambda connection: connection.exec_driver_sql(asked).scalar_one()) is None
    await store.close()
