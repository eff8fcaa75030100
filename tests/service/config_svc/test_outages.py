"""config_svc while PostgreSQL is killed, restarted, or silent."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import make_url
from structlog.testing import capture_logs

from config_svc.postgres.migrate import migrate
from config_svc.postgres.store import PostgresStore
from config_svc.postgres.tail import answered, why
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1 import template_service_pb2 as templates_pb
from parley_cli.embedded.postgres import EmbeddedPostgres
from servicekit.errors import ServiceError, Unavailable
from servicekit.rpc_status import from_rpc_error
from tests.servers.databases import migrated_database
from tests.servers.ports import free_port
from tests.servers.silent_proxy import Proxy
from tests.servers.standby import Standby
from tests.servers.stores import Choice, PostgresServer, libpq_url
from tests.service.config_svc.conftest import Running, agent, publish, running


@pytest.fixture
def mortal_postgres(server_choice: Choice, tmp_path: Path) -> Iterator[PostgresServer]:
    server = server_choice.own_postgres(tmp_path)
    server.start()
    yield server
    with contextlib.suppress(Exception):
        server.stop()
    server.remove()


CALLS: dict[str, Callable[[Running], Awaitable[Any]]] = {
    "create": lambda service: service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent("x"))),
    "get": lambda service: service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id="a")),
    "list": lambda service: service.agents.ListAgentConfigs(pb.ListAgentConfigsRequest()),
    "update": lambda service: service.agents.UpdateAgentConfig(
        pb.UpdateAgentConfigRequest(agent_config=agent("a", display_name="x"))
    ),
    "delete": lambda service: service.agents.DeleteAgentConfig(pb.DeleteAgentConfigRequest(id="a")),
    "revisions": lambda service: service.agents.ListAgentConfigRevisions(pb.ListAgentConfigRevisionsRequest(id="a")),
    "rollback": lambda service: service.agents.RollbackAgentConfig(pb.RollbackAgentConfigRequest(id="a", revision=1)),
    "watch": lambda service: service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest()).read(),
    "publish": lambda service: service.templates.PublishTemplate(publish("2.0.0")),
    "template": lambda service: service.templates.GetTemplate(templates_pb.GetTemplateRequest(id="assistant")),
    "templates": lambda service: service.templates.ListTemplates(templates_pb.ListTemplatesRequest()),
}


async def failure(call: Awaitable[Any]) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def health(service: Running) -> str:
    stub: Any = health_pb2_grpc.HealthStub(service.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="parley.config.v1.AgentConfigService"))
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def until(wanted: str, service: Running) -> None:
    async with asyncio.timeout(60):
        while await health(service) != wanted:
            await asyncio.sleep(0.02)


async def check_unavailable(service: Running, seconds: float) -> None:
    """Every RPC says that PostgreSQL is unavailable, all at once and quickly."""
    begun = time.monotonic()
    errors = await asyncio.gather(*(failure(call(service)) for call in CALLS.values()))
    assert time.monotonic() - begun < seconds
    for name, error in zip(CALLS, errors, strict=True):
        assert (name, error.code.name, error.reason) == (name, "UNAVAILABLE", "PEER_UNAVAILABLE")
        assert error.metadata == {"peer": "postgresql"}
        assert str(error) == "postgresql is unavailable"


async def create(service: Running, agent_id: str) -> None:
    await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent(agent_id)))


async def test_a_killed_postgresql_is_survived(mortal_postgres: PostgresServer) -> None:
    with migrated_database(mortal_postgres) as url:
        async with running(url) as service:
            await service.templates.PublishTemplate(publish())
            await create(service, "a")
            watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest())
            cursor = (await watch.read()).cursor
            await asyncio.to_thread(mortal_postgres.kill)
            await until("NOT_SERVING", service)
            assert (await failure(watch.read())).reason == "PEER_UNAVAILABLE"
            await check_unavailable(service, 12)
            await asyncio.to_thread(mortal_postgres.start)
            await until("SERVING", service)
            assert (await CALLS["get"](service)).agent_config.id == "a"
            await create(service, "b")
            watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest(cursor=cursor))
            assert [(await watch.read()).agent_config.id for _ in range(2)] == ["", "b"]
            watch.cancel()


async def test_a_failover_to_a_reader_and_back_is_survived(postgres_server: PostgresServer) -> None:
    """Sessions that began while the server took no writes stay as they are: nothing but a new one writes again."""
    with migrated_database(postgres_server) as url:
        name = make_url(url).database
        admin_url = libpq_url(postgres_server.database_url("postgres"))
        end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        async with running(url, database_pool_size=2) as service:
            await service.templates.PublishTemplate(publish())
            await create(service, "a")
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
                admin.execute(end_sessions, [name])
                for _ in range(3):
                    assert (await failure(create(service, "b"))).reason == "PEER_UNAVAILABLE"
                await until("SERVING", service)
                await asyncio.gather(*(CALLS["get"](service) for _ in range(8)))  # fills the pool with readers
                admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
            await asyncio.gather(*(create(service, f"b{n}") for n in range(4)))


async def test_a_promoted_standby_is_gone_on_with(server_choice: Choice, tmp_path: Path) -> None:
    """One address of a reader that becomes the primary, and two addresses of which the other one does."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers make a standby")
    primary = EmbeddedPostgres(tmp_path / "primary", durable=False)
    standby = Standby(tmp_path / "standby", primary)
    with contextlib.ExitStack() as servers:
        servers.callback(primary.remove)
        primary.start()
        servers.callback(standby.remove)
        migrate(primary.url)
        standby.start()
        both = primary.url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
        port = free_port()
        async with running(both) as followed, running(standby.url, metrics_port=port, key_secret="k" * 32) as fixed:
            await followed.templates.PublishTemplate(publish())
            watches = [service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest()) for service in (followed, fixed)]
            cursors = [(await watch.read()).cursor for watch in watches]
            await create(followed, "a")
            async with asyncio.timeout(60):  # the standby is a moment behind
                while (await watches[1].read()).agent_config.id != "a":
                    pass
            for _ in range(2):
                assert (await failure(create(fixed, "b"))).reason == "PEER_UNAVAILABLE"
            answer = await ready(port)
            assert answer.status_code == 200
            assert "read-only" in answer.json()["warnings"]["postgresql"]
            await asyncio.gather(*(CALLS["get"](fixed) for _ in range(8)))  # fills the pool with readers
            await asyncio.to_thread(primary.kill)
            assert (await failure(create(followed, "b"))).reason == "PEER_UNAVAILABLE"
            await asyncio.to_thread(standby.promote)
            await until("SERVING", followed)
            await create(fixed, "c")
            await create(followed, "d")
            for service, cursor in zip((followed, fixed), cursors, strict=True):
                watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest(cursor=cursor))
                async with asyncio.timeout(60):
                    while (await watch.read()).agent_config.id != "d":
                        pass
                watch.cancel()
            answer = await ready(port)
            assert (answer.status_code, answer.json()["parts"]) == (200, {"postgresql": "up"})


async def ready(port: int) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}/readyz")


async def test_the_reason_of_postgresql_is_logged_without_secrets(database_url: str) -> None:
    wrong = make_url(database_url).set(password="wr0ng-secret", username="nobody")
    gone = make_url(database_url).set(database="no_such_database")
    for url, said in ((wrong, "nobody"), (gone, "no_such_database")):
        store = PostgresStore(url.render_as_string(hide_password=False))
        with capture_logs() as logs, pytest.raises(Unavailable):
            await store.templates("", 1)
        await store.close()
        assert said in logs[-1]["why"]
        assert "wr0ng-secret" not in str(logs)


@pytest.mark.parametrize("said", ["password=hunter2 x", "postgresql://ann:hunter2@db/x refused", "PASSWORD: 'hunter2'"])
def test_a_password_that_an_error_quotes_is_cut_out(said: str) -> None:
    assert "hunter2" not in why(ValueError(said + "\nhunter2"))
    assert len(why(ValueError("x" * 10_000))) < 1000


async def test_statements_are_bounded_without_startup_options(database_url: str) -> None:
    """Poolers refuse `options`, so they are set when a connection is there."""
    store = PostgresStore(database_url, answer_seconds=2.5)
    bounds = await store.run_sync(
        lambda connection: connection.exec_driver_sql(
            "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
        ).one()
    )
    await store.close()
    assert tuple(bounds) == ("2500ms", "2500ms")


async def test_a_restart_between_two_calls_is_not_noticed(mortal_postgres: PostgresServer) -> None:
    """Every pooled connection is dead then; each kind of call gets itself a new one."""
    with migrated_database(mortal_postgres) as url:
        async with running(url, database_pool_size=3) as service:
            await service.templates.PublishTemplate(publish())
            await create(service, "a")
            for _ in range(2):
                await asyncio.gather(*(CALLS["get"](service) for _ in range(3)))
                await asyncio.to_thread(mortal_postgres.kill)
                await asyncio.to_thread(mortal_postgres.start)
                await CALLS["update"](service)
                await asyncio.gather(*(CALLS["get"](service) for _ in range(3)))


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = Proxy(database_url)
    yield proxy, await proxy.start()
    await proxy.close()


async def test_a_silent_postgresql_is_survived(proxy: tuple[Proxy, str]) -> None:
    wire, url = proxy
    async with running(url) as patient:
        await patient.templates.PublishTemplate(publish())
        await create(patient, "a")
    async with running(url, database_timeout=1, feed_poll=0.3) as service:
        wire.freeze()
        await until("NOT_SERVING", service)
        await check_unavailable(service, 30)
        wire.thaw()
        await until("SERVING", service)
        async with asyncio.timeout(60):  # what was abandoned holds its connections until it has been cancelled
            for number in itertools.count():
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert (await CALLS["get"](service)).agent_config.id == "a"
                    await create(service, f"b{number}")
                    break


async def test_the_start_waits_for_postgresql(proxy: tuple[Proxy, str]) -> None:
    wire, url = proxy
    wire.freeze()
    async with asyncio.timeout(60):
        started = asyncio.create_task(_start_and_stop(url))
        await asyncio.sleep(4)
        assert not started.done()
        wire.thaw()
        await started


async def _start_and_stop(url: str) -> None:
    # Long enough for any start once the wire is free, short enough for one to be given up before.
    async with running(url, database_timeout=3.0) as service:
        await until("SERVING", service)


async def test_a_caller_that_gives_up_gives_its_connection_back(database_url: str, proxy: tuple[Proxy, str]) -> None:
    wire, url = proxy
    async with running(url, database_pool_size=1) as service:
        await service.templates.PublishTemplate(publish())
        await create(service, "a")
        wire.freeze()
        get = service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id="a"), timeout=0.1)
        assert (await failure(get)).code.name == "DEADLINE_EXCEEDED"
        wire.thaw()
        async with asyncio.timeout(60):
            await until("SERVING", service)
            assert (await CALLS["get"](service)).agent_config.id == "a"


async def test_connections_that_fell_silent_are_given_up(proxy: tuple[Proxy, str]) -> None:
    """Also while nothing else answers: what is abandoned in a statement, or in a transaction between two, ends."""
    wire, url = proxy
    store = PostgresStore(url, answer_seconds=1, pool_size=2)

    async def silent(transaction: Any) -> None:
        wire.freeze()
        await transaction._connection.exec_driver_sql("SELECT 1")

    async def silent_after(transaction: Any) -> None:
        await transaction._connection.exec_driver_sql("SELECT 1")
        wire.freeze()
        await asyncio.sleep(60)

    for work in (silent, silent_after):
        wire.thaw()
        for outcome in await asyncio.gather(*(store.transact(work) for _ in range(2)), return_exceptions=True):
            assert isinstance(outcome, Unavailable)
        async with asyncio.timeout(60):
            while store.connections_in_use:
                await asyncio.sleep(0.05)
    await store.close()
    assert not store._abandoned


ROLE_FAULTS = {
    "REVOKE ALL ON {table} FROM {role}": (
        "GRANT ALL ON {table} TO {role}",
        "permission denied for table agent_configs",
    ),
    "ALTER TABLE {table} RENAME TO hidden": ("ALTER TABLE hidden RENAME TO {table}", '"agent_configs" does not exist'),
    "ALTER ROLE {role} NOLOGIN": ("ALTER ROLE {role} LOGIN", "not permitted to log in"),
    "ALTER ROLE {role} PASSWORD 'other'": ("ALTER ROLE {role} PASSWORD 'hunter2'", "password authentication failed"),
    "ALTER ROLE {role} SET search_path = hidden": ("ALTER ROLE {role} RESET search_path", "does not exist"),
    "ALTER ROLE {role} SET datestyle = German": ("ALTER ROLE {role} RESET datestyle", ""),
}
"""What is done, what undoes it, and what is said meanwhile: nothing where it changes nothing."""


async def test_rights_and_tables_that_are_taken_away_are_named_and_come_back(database_url: str) -> None:
    role, port = f"app{free_port()}", free_port()
    names = {"role": role, "table": "agent_configs"}
    url = make_url(database_url).set(username=role, password="hunter2").render_as_string(hide_password=False)
    end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    with psycopg.connect(libpq_url(database_url), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'".encode())
        for kind in ("TABLES", "SEQUENCES"):
            admin.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}".encode())
        async with running(url, metrics_port=port) as service:
            await service.templates.PublishTemplate(publish())
            await create(service, "a")
            for fault, (undo, said) in ROLE_FAULTS.items():
                admin.execute(fault.format(**names).encode())
                admin.execute(end_sessions, [role])
                if said:
                    async with asyncio.timeout(60):
                        answer = ""
                        while said not in answer:
                            assert (await failure(CALLS["get"](service))).reason == "PEER_UNAVAILABLE"
                            answer = str((await ready(port)).json())
                    assert "hunter2" not in answer
                else:
                    assert (await CALLS["get"](service)).agent_config.id == "a"
                admin.execute(undo.format(**names).encode())
                admin.execute(end_sessions, [role])
                await until("SERVING", service)
                assert (await CALLS["get"](service)).agent_config.id == "a"
        admin.execute(f"DROP OWNED BY {role}".encode())
        admin.execute(f"DROP ROLE {role}".encode())


async def test_what_nobody_takes_any_more_is_undone() -> None:
    undone: list[str] = []

    async def opened() -> str:
        caller.cancel()
        return "a connection"

    caller = asyncio.create_task(answered(opened(), 60, set(), undo=undone.append))
    await asyncio.wait([caller])
    async with asyncio.timeout(60):
        while not undone:
            await asyncio.sleep(0)
    assert caller.cancelled()
